"""Reductions and normalizations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper


@settings(max_examples=40, deadline=None)
@given(
    op=st.sampled_from(["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"]),
    axes=st.sets(st.integers(1, 3), min_size=1),
    keep=st.booleans(),
)
def test_reduce(lab, op, axes, keep):
    chosen = np.asarray(sorted(axes), np.int64)
    model = lab.one(op, (1, 3, 4, 5), [chosen], keepdims=int(keep))
    left = 4 - len(axes)
    # (N, C, W) and (N, C, H) are given back in ONNX's order.
    transposes = int(not keep and left == 3 and 1 not in axes)

    lab.both(model, transposes=transposes)


def test_length(lab):
    lab.float_check(lab.one("ReduceL2", (1, 3, 4, 5), [np.asarray([1], np.int64)]))


def numbers(lab, *shape):
    return lab.rng.uniform(0.5, 1.5, shape).astype(np.float32)


def test_batch_normalization(lab, operators):
    constants = {name: numbers(lab, 3) for name in "sbmv"}
    nodes = [
        helper.make_node("BatchNormalization", ["x", *"sbmv"], ["n"], epsilon=1e-3),
        helper.make_node("Relu", ["n"], ["y"]),
    ]

    lowered = lab.float_check(lab.graph(nodes, (1, 3, 4, 5), constants))
    assert operators(lowered)["RELU"] == 0


@pytest.mark.parametrize("axis", [-1, 1, 2])
def test_layer_normalization(lab, axis):
    shape = (1, 3, 4, 5)
    model = lab.one("LayerNormalization", shape, [numbers(lab, *shape[axis:])] * 2, axis=axis)

    # No int8 kernel: it is computed in float between int8 neighbours, and said so.
    lab.both(model, left_float=1)


def test_layer_normalization_of_channels_needs_no_transpose(lab, operators):
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 3, 1]),
        helper.make_node("LayerNormalization", ["t", "s", "b"], ["n"]),
        helper.make_node("Transpose", ["n"], ["i"], perm=[0, 3, 1, 2]),
        helper.make_node("GlobalAveragePool", ["i"], ["y"]),
    ]
    constants = {"s": numbers(lab, 6), "b": numbers(lab, 6)}

    lowered = lab.float_check(lab.graph(nodes, (1, 6, 4, 4), constants))
    assert operators(lowered)["TRANSPOSE"] == 0


def test_instance_normalization(lab):
    lab.float_check(lab.one("InstanceNormalization", (1, 3, 4, 5), [numbers(lab, 3)] * 2))


def test_group_normalization_of_one_group_needs_no_transpose(lab, operators):
    """As torch exports it: flattened, normalized, and an image again."""
    nodes = [
        helper.make_node("Reshape", ["x", "flat"], ["f"]),
        helper.make_node("InstanceNormalization", ["f", "one", "zero"], ["n"]),
        helper.make_node("Reshape", ["n", "image"], ["i"]),
        helper.make_node("Mul", ["i", "s"], ["m"]),
        helper.make_node("GlobalAveragePool", ["m"], ["y"]),
    ]
    constants = {
        "flat": np.asarray([1, 1, -1], np.int64), "image": np.asarray([1, 6, 4, 5], np.int64),
        "one": np.ones(1, np.float32), "zero": np.zeros(1, np.float32), "s": numbers(lab, 6, 1, 1),
    }  # fmt: skip

    lowered = lab.float_check(lab.graph(nodes, (1, 6, 4, 5), constants))
    assert operators(lowered)["TRANSPOSE"] == 0


def test_local_response(lab):
    lab.float_check(lab.one("LRN", (1, 8, 4, 5), size=5, alpha=0.1, beta=0.75, bias=1.0))
