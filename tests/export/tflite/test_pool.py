"""Pooling with every padding and ceil rule of ONNX."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import helper

from edgecls.core.errors import UnsupportedOperatorError
from edgecls.export.tflite import lower

size = st.tuples(st.integers(5, 12), st.integers(5, 12))
window = st.tuples(st.integers(1, 4), st.integers(1, 4))


@st.composite
def pooling(draw):
    kernel = draw(window)
    strides = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    pads = [draw(st.integers(0, k - 1)) for k in (*kernel, *kernel)]
    return {"kernel_shape": kernel, "strides": strides, "pads": pads}


def has_empty_window(size, attributes):
    """Whether a last window lies beyond the image, on which ONNX and its runtimes disagree."""
    for axis in (0, 1):
        before, after = attributes["pads"][axis], attributes["pads"][axis + 2]
        kernel, stride = attributes["kernel_shape"][axis], attributes["strides"][axis]
        last = -(-(size[axis] + before + after - kernel) // stride)
        if last * stride >= size[axis] + before:
            return True
    return False


def test_window_beyond_the_image_is_refused(lab):
    model = lab.one("MaxPool", (1, 3, 5, 5), ceil_mode=1, kernel_shape=[1, 1], strides=[3, 3])

    with pytest.raises(UnsupportedOperatorError, match="no pixel"):
        lower(model)


@settings(max_examples=50, deadline=None)
@given(size=size, attributes=pooling(), ceil=st.booleans())
def test_max_pool(lab, size, attributes, ceil):
    assume(not has_empty_window(size, attributes))

    lab.both(lab.one("MaxPool", (1, 3, *size), ceil_mode=int(ceil), **attributes))


@settings(max_examples=50, deadline=None)
@given(size=size, attributes=pooling(), ceil=st.booleans(), include=st.booleans())
def test_average_pool(lab, size, attributes, ceil, include):
    assume(not has_empty_window(size, attributes))
    model = lab.one(
        "AveragePool", (1, 3, *size), ceil_mode=int(ceil), count_include_pad=int(include),
        **attributes,
    )  # fmt: skip

    lab.float_check(model)
    lowered = lower(lab.quantize(model))
    lab.int8_check(lab.quantize(model), left_float=len(lowered.left_float))


def test_average_pool_that_tflite_has_stays_int8(lab, operators):
    model = lab.one("AveragePool", (1, 3, 8, 8), kernel_shape=[2, 2], strides=[2, 2])

    _, lowered = lab.both(model)

    assert operators(lowered) - Counter(TRANSPOSE=1) == {"AVERAGE_POOL_2D": 1}


def test_average_pool_with_an_uneven_count_is_reported(lab):
    model = lab.one("AveragePool", (1, 3, 8, 8), kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)

    assert lab.int8_check(lab.quantize(model), left_float=1).quantized == 0


def test_adaptive_pool_of_the_wanted_size_is_nothing(lab, operators):
    float_, int8 = lab.both(lab.one("AveragePool", (1, 3, 7, 7), kernel_shape=[1, 1]))

    assert operators(float_) == operators(int8) == {"TRANSPOSE": 1}


@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool"])
def test_global_pool(lab, op):
    lab.both(lab.one(op, (1, 5, 6, 7)))


def test_dilated_pool_is_refused(lab):
    model = lab.one("MaxPool", (1, 3, 8, 8), kernel_shape=[2, 2], dilations=[2, 2])

    with pytest.raises(UnsupportedOperatorError, match="dilations"):
        lower(model)


@pytest.mark.parametrize(("before", "expected"), [("Relu", "PAD"), ("Neg", "PADV2")])
def test_max_pool_pads_with_zero_where_nothing_is_below(lab, operators, before, expected):
    nodes = [
        helper.make_node(before, ["x"], ["r"]),
        helper.make_node(
            "MaxPool", ["r"], ["y"], kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2]
        ),
    ]

    lowered = lab.float_check(lab.graph(nodes, (1, 3, 8, 8)))

    assert operators(lowered)[expected] == 1


@settings(max_examples=30, deadline=None)
@given(
    length=st.integers(5, 12),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    pad=st.integers(0, 1),
    op=st.sampled_from(["MaxPool", "AveragePool"]),
)
def test_pool_over_one_axis(lab, length, kernel, stride, pad, op):
    pads = [min(pad, kernel - 1), 0]
    model = lab.one(op, (1, 3, length), kernel_shape=[kernel], strides=[stride], pads=pads)

    transposes = lower(model).transposes
    left_float = len(lower(lab.quantize(model)).left_float)
    lab.both(model, transposes=transposes, left_float=left_float)
    # One to channels last, one back; a maximum needs no factors.
    assert transposes <= 2
    assert left_float <= (op == "AveragePool")
