"""Operators that move values: exact in float and in int8."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from edgecls.core.errors import UnsupportedOperatorError
from edgecls.export.tflite import lower

integers = st.integers(0, 3)


def moved(lab, model, **expected):
    """Check that nothing at all is computed: int8 agrees to the code."""
    lab.float_check(model, limit=0.0, **expected)
    lowered = lab.int8_check(lab.quantize(model), steps=0, **expected)

    assert lowered.quantized == 0
    return lowered


def ints(*values):
    return np.asarray(values, np.int64)


@pytest.mark.parametrize(
    ("op", "constants"),
    [
        ("Reshape", [ints(1, 60)]), ("Reshape", [ints(1, 12, 5)]), ("Reshape", [ints(1, 3, 20)]),
        ("Reshape", [ints(1, 1, 3, 4, 5)]), ("Reshape", [ints(0, -1)]), ("Flatten", []),
        ("Unsqueeze", [ints(2)]), ("Squeeze", [ints(0)]),
    ],
)  # fmt: skip
def test_reshape(lab, op, constants):
    model = lab.one(op, (1, 3, 4, 5), constants)
    inputs = lab.data(model)

    for lowered in (lower(model), lower(lab.quantize(model))):
        (expected,) = lab.onnx(model, inputs)
        assert lowered.output.shape == expected[:1].shape or op == "Squeeze"
        assert lowered.transposes <= 1
    lab.float_check(model, limit=0.0, transposes=lower(model).transposes)


@settings(max_examples=40, deadline=None)
@given(
    starts=st.tuples(integers, integers, integers),
    steps=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)),
    ends=st.tuples(st.integers(4, 9), st.integers(-1, 9), st.integers(4, 9)),
)
def test_slice(lab, starts, steps, ends):
    ends = tuple(end if end != 0 else 9 for end in ends)
    ends = (ends[0], 9 if ends[1] < 4 and ends[1] != -1 else ends[1], ends[2])
    model = lab.one(
        "Slice", (1, 5, 6, 7), [ints(*starts), ints(*ends), ints(1, -2, 3), ints(*steps)]
    )

    moved(lab, model)


@settings(max_examples=40, deadline=None)
@given(
    start=st.integers(1, 9),
    end=st.sampled_from([0, -6, -7, -99]),
    step=st.integers(-3, -1),
    forwards=st.booleans(),
)
def test_backward_slice(lab, start, end, step, forwards):
    bounds = [ints(start, 1), ints(end, 99), ints(-1, 2), ints(step, 2 if forwards else 1)]
    model = lab.one("Slice", (1, 2, 6, 6), bounds)

    moved(lab, model)


@settings(max_examples=30, deadline=None)
@given(
    before=st.lists(integers, min_size=4, max_size=4),
    after=st.lists(integers, min_size=4, max_size=4),
)
def test_zero_pad(lab, before, after):
    before[0] = after[0] = 0

    moved(lab, lab.one("Pad", (1, 3, 4, 5), [ints(*before, *after)]))


@pytest.mark.parametrize("number", [1, -1, 100])
def test_pad_with_another_number_rounds_it_as_the_users_do(lab, number):
    model = lab.one("Pad", (1, 3, 4, 5), [ints(0, 0, 1, 1, 0, 0, 1, 1), np.float32(number)])

    lab.float_check(model, limit=0.0)
    lab.int8_check(lab.quantize(model), steps=0)


def test_pad_with_another_number_that_nobody_rounds_is_float(lab):
    model = lab.one("Pad", (1, 3, 4, 5), [ints(0, 0, 1, 1, 0, 0, 1, 1), np.float32(1)])

    lowered = lower(lab.quantize(model, skip=["y"]))

    assert len(lowered.left_float) == 1
    assert lowered.output.dtype == "float32"


def test_pad_by_reflection_is_refused(lab):
    model = lab.one("Pad", (1, 3, 4, 5), [ints(0, 0, 1, 1, 0, 0, 1, 1)], mode="reflect")

    with pytest.raises(UnsupportedOperatorError, match="reflect"):
        lower(model)


@given(perm=st.permutations([1, 2, 3]))
@settings(max_examples=6, deadline=None)
def test_transpose_is_a_change_of_names(lab, perm):
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, *perm]),
        helper.make_node("Relu", ["t"], ["r"]),
        helper.make_node(
            "Transpose", ["r"], ["y"], perm=[0, *(perm.index(a) + 1 for a in (1, 2, 3))]
        ),
    ]

    moved_nodes = lab.graph(nodes, (1, 3, 4, 5))
    assert lower(moved_nodes).transposes == 1
    lab.both(moved_nodes)


def test_channel_shuffle_takes_one_transpose(lab, operators):
    nodes = [
        helper.make_node("Reshape", ["x", "groups"], ["g"]),
        helper.make_node("Transpose", ["g"], ["t"], perm=[0, 2, 1, 3, 4]),
        helper.make_node("Reshape", ["t", "image"], ["i"]),
        helper.make_node("GlobalMaxPool", ["i"], ["y"]),
    ]
    constants = {"groups": ints(1, 2, 3, 4, 5), "image": ints(1, 6, 4, 5)}

    for lowered in lab.both(lab.graph(nodes, (1, 6, 4, 5), constants), transposes=1):
        assert operators(lowered)["TRANSPOSE"] == 1


@pytest.mark.parametrize("axis", [1, 2, -1])
def test_concat(lab, axis):
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Concat", ["x", "r", "x"], ["y"], axis=axis),
    ]

    lab.both(lab.graph(nodes, (1, 3, 4, 5)))


def test_concat_with_a_constant(lab):
    token = lab.rng.normal(size=(1, 1, 6)).astype(np.float32)
    nodes = [helper.make_node("Concat", ["token", "x"], ["y"], axis=1)]

    lab.both(lab.graph(nodes, (1, 4, 6), {"token": token}))


@pytest.mark.parametrize("sizes", [(2, 2, 2), (1, 2, 3)])
def test_split(lab, sizes):
    nodes = [
        helper.make_node("Split", ["x", "sizes"], ["a", "b", "c"], axis=1),
        helper.make_node("Concat", ["c", "a", "b"], ["y"], axis=1),
    ]

    moved(lab, lab.graph(nodes, (1, 6, 4, 5), {"sizes": ints(*sizes)}))


@pytest.mark.parametrize("indices", [1, -1, [2, 0], [1, 2], [[0, 1], [2, 2]], [0, 1, 2]])
def test_gather(lab, indices):
    model = lab.one(
        "Gather",
        (1, 3, 4, 5),
        [ints(*indices) if isinstance(indices, list) else np.int64(indices)],
        axis=1,
    )

    moved(lab, model, transposes=lower(model).transposes - (np.ndim(indices) == 1))


@pytest.mark.parametrize("shape", [(1, 3, 4, 5), (1, 1, 4, 5), (4, 5)])
def test_expand(lab, shape):
    nodes = [
        helper.make_node("ReduceMax", ["x", "axes"], ["m"], keepdims=1),
        helper.make_node("Expand", ["m", "shape"], ["y"]),
    ]
    constants = {"axes": ints(2, 3), "shape": ints(*shape)}

    moved(lab, lab.graph(nodes, (1, 3, 4, 5), constants))


@pytest.mark.parametrize("op", ["DepthToSpace", "SpaceToDepth"])
def test_blocks(lab, op):
    moved(lab, lab.one(op, (1, 8, 4, 6), blocksize=2))


def test_blocks_ordered_by_channel_first(lab):
    moved(lab, lab.one("DepthToSpace", (1, 12, 4, 6), blocksize=2, mode="CRD"))


@pytest.mark.parametrize(
    ("mode", "transform", "rounding"),
    [
        ("nearest", "asymmetric", "floor"),
        ("nearest", "half_pixel", "round_prefer_floor"),
        ("linear", "half_pixel", "floor"),
        ("linear", "pytorch_half_pixel", "floor"),
        ("linear", "asymmetric", "floor"),
        ("linear", "align_corners", "floor"),
    ],
)
@pytest.mark.parametrize("size", [(8, 10), (12, 5)])
def test_resize(lab, mode, transform, rounding, size):
    constants = [None, None, ints(1, 3, *size)]
    model = lab.one(
        "Resize", (1, 3, 4, 5), constants, mode=mode, nearest_mode=rounding,
        coordinate_transformation_mode=transform,
    )  # fmt: skip

    lab.both(model)


def test_cubic_resize_is_refused(lab):
    model = lab.one("Resize", (1, 3, 4, 5), [None, None, ints(1, 3, 8, 8)], mode="cubic")

    with pytest.raises(UnsupportedOperatorError, match="cubic"):
        lower(model)
