"""Fully connected layers and matrix products."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from edgecls.core.errors import UnsupportedOperatorError
from edgecls.export.tflite import lower


def weights(lab, *shape):
    return lab.rng.normal(0, 0.3, shape).astype(np.float32)


@settings(max_examples=30, deadline=None)
@given(
    inputs=st.integers(1, 40),
    outputs=st.integers(1, 20),
    transposed=st.booleans(),
    bias=st.booleans(),
    relu=st.booleans(),
)
def test_gemm(lab, inputs, outputs, transposed, bias, relu):
    shape = (outputs, inputs) if transposed else (inputs, outputs)
    constants = {"w": weights(lab, *shape), "b": weights(lab, outputs)}
    end = "g" if relu else "y"
    names = ["x", "w", "b"] if bias else ["x", "w"]
    nodes = [helper.make_node("Gemm", names, [end], transB=int(transposed))]
    if relu:
        nodes.append(helper.make_node("Relu", [end], ["y"]))

    lab.both(lab.graph(nodes, (1, inputs), constants))


def test_gemm_factors(lab):
    model = lab.one(
        "Gemm", (1, 8), [weights(lab, 5, 8), weights(lab, 5)], transB=1, alpha=0.5, beta=2.0
    )

    lab.float_check(model)
    with pytest.raises(UnsupportedOperatorError, match="alpha"):
        lower(lab.quantize(model))


@pytest.mark.parametrize("shape", [(1, 6), (1, 4, 6), (1, 2, 3, 6)])
@pytest.mark.parametrize("bias", [False, True])
def test_matmul_by_weights(lab, operators, shape, bias):
    constants = {"w": weights(lab, 6, 5), "b": weights(lab, 5)}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m" if bias else "y"])]
    if bias:
        nodes.append(helper.make_node("Add", ["b", "m"], ["y"]))
    model = lab.graph(nodes, shape, constants)

    lab.both(model, transposes=len(shape) == 4)
    assert operators(lower(model))["ADD"] == 0


@pytest.mark.parametrize("features", [(3, 1, 1), (3, 4, 5), (1, 4, 5)])
@pytest.mark.parametrize("between", [None, "Relu", "Sigmoid"])
def test_flattened_image_needs_no_transpose(lab, operators, features, between):
    count = int(np.prod(features))
    nodes = [helper.make_node("Flatten", ["x"], ["f"])]
    if between:
        nodes.append(helper.make_node(between, ["f"], ["r"]))
    nodes.append(helper.make_node("Gemm", ["r" if between else "f", "w"], ["y"], transB=1))
    model = lab.graph(nodes, (1, *features), {"w": weights(lab, 7, count)})

    for lowered in lab.both(model):
        assert operators(lowered)["TRANSPOSE"] == 0


def test_flattened_image_that_is_used_as_such(lab):
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("Relu", ["f"], ["y"])]

    lab.both(lab.graph(nodes, (1, 3, 4, 5)), transposes=1)


def test_product_of_activations(lab, operators):
    nodes = [
        helper.make_node("Reshape", ["x", "heads"], ["h"]),
        helper.make_node("Transpose", ["h"], ["t"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["h", "t"], ["s"]),
        helper.make_node("Softmax", ["s"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "h"], ["y"]),
    ]
    model = lab.graph(nodes, (1, 40), {"heads": np.asarray([1, 2, 5, 4], np.int64)})

    for lowered in lab.both(model, steps=2):
        # The transposed operand is read as it is.
        assert operators(lowered)["TRANSPOSE"] == 0
        assert operators(lowered)["BATCH_MATMUL"] == 2


@pytest.mark.parametrize("shapes", [((6,), (6, 5)), ((6,), (2, 6, 5)), ((2, 4, 6), (6,))])
def test_vectors(lab, shapes):
    left, right = shapes
    constants = {
        "l": np.asarray(left, np.int64), "one": np.asarray([0, 0], np.int64),
        "end": np.asarray([1, np.prod(left)], np.int64), "axes": np.asarray([0, 1], np.int64),
        "r": weights(lab, *right),
    }  # fmt: skip
    nodes = [
        helper.make_node("Slice", ["x", "one", "end", "axes"], ["s"]),
        helper.make_node("Reshape", ["s", "l"], ["a"]),
        helper.make_node("MatMul", ["a", "r"], ["m"]),
        helper.make_node("Relu", ["m"], ["y"]),
    ]
    model = lab.graph(nodes, (1, int(np.prod(left)) + 1), constants)

    lab.float_check(model)


def test_transposed_input(lab):
    constants = {"w": weights(lab, 6, 5), "b": weights(lab, 5), "s": np.asarray([6, 4])}
    nodes = [
        helper.make_node("Reshape", ["x", "s"], ["r"]),
        helper.make_node("Gemm", ["r", "w", "b"], ["y"], transA=1),
    ]

    lab.both(lab.graph(nodes, (1, 24), constants), transposes=1)


def test_weights_computed_at_run_time_are_refused(lab):
    nodes = [helper.make_node("Gemm", ["x", "x"], ["y"], transB=1)]

    with pytest.raises(UnsupportedOperatorError, match="run time"):
        lower(lab.graph(nodes, (1, 4)))


def test_tokens_as_a_matrix_need_no_reshape(lab, operators):
    """What torch's exporter makes of a linear layer: tokens to a matrix, Gemm, and back."""
    nodes = [
        helper.make_node("Reshape", ["x", "rows"], ["r"]),
        helper.make_node("Gemm", ["r", "w", "b"], ["g"]),
        helper.make_node("Reshape", ["g", "tokens"], ["t"]),
        helper.make_node("Add", ["t", "x"], ["y"]),
    ]
    constants = {
        "rows": np.asarray([7, 6]), "tokens": np.asarray([1, 7, 6]),
        "w": weights(lab, 6, 6), "b": weights(lab, 6),
    }  # fmt: skip

    for lowered in lab.both(lab.graph(nodes, (1, 7, 6), constants), steps=2):
        assert operators(lowered) == {"FULLY_CONNECTED": 1, "ADD": 1}


def test_attention_takes_one_transpose_before_its_parts_and_one_behind(lab, operators):
    """LeViT's: heads in front, queries, keys and values beside each other along the last axis."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Reshape", ["m", "heads"], ["h"]),
        helper.make_node("Split", ["h", "sizes"], ["q", "k", "v"], axis=3),
        helper.make_node("Transpose", ["q"], ["qt"], perm=[0, 2, 1, 3]),
        helper.make_node("Transpose", ["k"], ["kt"], perm=[0, 2, 3, 1]),
        helper.make_node("Transpose", ["v"], ["vt"], perm=[0, 2, 1, 3]),
        helper.make_node("MatMul", ["qt", "kt"], ["s"]),
        helper.make_node("Softmax", ["s"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "vt"], ["o"]),
        helper.make_node("Transpose", ["o"], ["t"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["t", "tokens"], ["y"]),
    ]
    constants = {
        "w": weights(lab, 6, 2 * 16), "heads": np.asarray([1, 5, 2, 16]),
        "sizes": np.asarray([4, 4, 8]), "tokens": np.asarray([1, 5, 16]),
    }  # fmt: skip

    for lowered in lab.both(lab.graph(nodes, (1, 5, 6), constants), transposes=2, steps=3):
        assert operators(lowered)["TRANSPOSE"] == 2


def test_reshapes_and_transposes_in_a_row_are_one(lab, operators):
    """MobileViT's patches of 2 x 2: an image to tokens per position in the patch, and back."""
    nodes = [
        helper.make_node("Reshape", ["x", "rows"], ["a"]),
        helper.make_node("Transpose", ["a"], ["b"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["b", "patches"], ["c"]),
        helper.make_node("Transpose", ["c"], ["d"], perm=[0, 3, 2, 1]),
        helper.make_node("Reshape", ["d", "tokens"], ["e"]),
        helper.make_node("MatMul", ["e", "w"], ["m"]),
        helper.make_node("Reshape", ["m", "back"], ["f"]),
        helper.make_node("Transpose", ["f"], ["g"], perm=[0, 3, 2, 1]),
        helper.make_node("Reshape", ["g", "apart"], ["h"]),
        helper.make_node("Transpose", ["h"], ["i"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["i", "image"], ["j"]),
        helper.make_node("GlobalAveragePool", ["j"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    shapes = {
        "rows": [8 * 3, 2, 3, 2], "patches": [1, 8, 9, 4], "tokens": [4, 9, 8],
        "back": [1, 4, 9, 8], "apart": [8 * 3, 3, 2, 2], "image": [1, 8, 6, 6],
    }  # fmt: skip
    constants = {name: np.asarray(shape) for name, shape in shapes.items()}
    model = lab.graph(nodes, (1, 8, 6, 6), {**constants, "w": weights(lab, 8, 8)})

    for lowered in lab.both(model, transposes=2, steps=2):
        assert operators(lowered)["TRANSPOSE"] == 2
