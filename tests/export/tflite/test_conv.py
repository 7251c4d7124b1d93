"""Convolutions of every shape, float and int8, against ONNX Runtime."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from edgecls.core.errors import GraphError, UnsupportedOperatorError
from edgecls.export.tflite import lower

small = st.integers(1, 3)
pads = st.integers(0, 3)


def conv(lab, channels, size, out, kernel, *, groups=1, bias=True, relu=None, **attributes):
    rng = lab.rng
    weight = rng.normal(0, 0.3, (out, channels // groups, *kernel)).astype(np.float32)
    constants = {"w": weight}
    inputs = ["x", "w"]
    if bias:
        constants["b"] = rng.normal(0, 0.5, out).astype(np.float32)
        inputs.append("b")
    end = "c" if relu else "y"
    nodes = [helper.make_node("Conv", inputs, [end], group=groups, **attributes)]
    if relu == "relu":
        nodes.append(helper.make_node("Relu", ["c"], ["y"]))
    elif relu == "relu6":
        constants |= {"lo": np.float32(0), "hi": np.float32(6)}
        nodes.append(helper.make_node("Clip", ["c", "lo", "hi"], ["y"]))
    return lab.graph(nodes, (1, channels, *size), constants)


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(7, 13), st.integers(7, 13)),
    kernel=st.tuples(small, small),
    strides=st.tuples(small, small),
    dilations=st.tuples(small, small),
    padding=st.tuples(pads, pads, pads, pads),
    groups=st.integers(1, 4),
    depth=small,
    multiplier=small,
    bias=st.booleans(),
    relu=st.sampled_from([None, "relu", "relu6"]),
)
def test_conv_is_the_same(
    lab, size, kernel, strides, dilations, padding, groups, depth, multiplier, bias, relu
):
    """With depth 1 it is depthwise; the kernel spans at most the 7 pixels of the smallest image."""
    model = conv(
        lab, groups * depth, size, groups * multiplier, kernel, groups=groups, bias=bias, relu=relu,
        strides=strides, dilations=dilations, pads=padding,
    )  # fmt: skip

    lab.both(model)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("stride", [1, 2])
def test_auto_pad(lab, auto_pad, stride):
    model = conv(lab, 3, (8, 9), 4, (3, 3), auto_pad=auto_pad, strides=(stride, stride))

    lab.both(model)


@pytest.mark.parametrize(
    ("padding", "stride", "expected"),
    [
        ((1, 1, 1, 1), 1, {"CONV_2D": 1}),
        ((0, 0, 1, 1), 2, {"CONV_2D": 1}),
        ((1, 1, 1, 1), 2, {"PAD": 1, "CONV_2D": 1}),
        ((0, 0, 0, 0), 2, {"CONV_2D": 1}),
    ],
)
def test_same_is_used_where_it_agrees(lab, operators, padding, stride, expected):
    model = conv(lab, 3, (8, 8), 4, (3, 3), pads=padding, strides=(stride, stride), relu="relu")

    for lowered in lab.both(model):
        assert operators(lowered) - Counter(TRANSPOSE=1) == expected


def test_pad_is_taken_over(lab, operators):
    constants = {
        "p": np.asarray([0, 0, 0, 0, 0, 0, 1, 1], np.int64),
        "w": lab.rng.normal(size=(4, 3, 3, 3)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Pad", ["x", "p"], ["padded"]),
        helper.make_node("Conv", ["padded", "w"], ["y"], strides=[2, 2]),
    ]
    model = lab.graph(nodes, (1, 3, 8, 8), constants)

    for lowered in lab.both(model):
        assert operators(lowered) - Counter(TRANSPOSE=1) == {"CONV_2D": 1}


def test_uint8_activations_are_shifted(lab):
    model = lab.quantize(conv(lab, 3, (8, 8), 4, (3, 3)), unsigned=True)

    assert lab.int8_check(model).input.dtype == "int8"


def test_one_scale_for_all_weights(lab):
    lab.int8_check(lab.quantize(conv(lab, 3, (8, 8), 4, (3, 3)), per_tensor=True))


def dead_channels(lab, bias, weight):
    model = conv(lab, 3, (6, 6), 3, (3, 3))
    tensors = {t.name: t for t in model.graph.initializer}
    weights = np.array(lab.rng.normal(size=(3, 3, 3, 3)), np.float32)
    weights[1] = weight
    tensors["w"].raw_data = weights.tobytes()
    tensors["b"].raw_data = np.asarray([0.1, bias, -0.2], np.float32).tobytes()
    return lab.quantize(model)


@pytest.mark.parametrize("bias", [0.0, 0.7, -3.0])
@pytest.mark.parametrize("weight", [0.0, 1e-8])
def test_channel_with_hardly_any_weights_keeps_its_bias(lab, bias, weight):
    lab.int8_check(dead_channels(lab, bias, weight))


def test_bias_that_fits_no_step(lab):
    model = dead_channels(lab, 3.0, 1e-8)
    for tensor in model.graph.initializer:
        # Weights that matter, in steps in which the bias does not fit.
        if tensor.name == "x_s":
            tensor.raw_data = np.float32(1e-9).tobytes()
        if tensor.name == "y_s":
            tensor.raw_data = np.float32(1e-12).tobytes()

    with pytest.raises(GraphError, match=r"bias .* does not fit int32"):
        lower(model)


def replaced(model, name, array):
    for index, tensor in enumerate(model.graph.initializer):
        if tensor.name == name:
            model.graph.initializer[index].CopyFrom(numpy_helper.from_array(array, name))
    return model


def test_code_minus_128_is_refused(lab):
    model = lab.quantize(conv(lab, 3, (6, 6), 4, (3, 3)))
    array = np.full((4, 3, 3, 3), -128, np.int8)

    with pytest.raises(GraphError, match="-128"):
        lower(replaced(model, "w_q", array))


def test_asymmetric_weights_are_refused(lab):
    model = lab.quantize(conv(lab, 3, (6, 6), 4, (3, 3)))

    with pytest.raises(UnsupportedOperatorError, match="asymmetric"):
        lower(replaced(model, "w_z", np.full(4, 3, np.int8)))


def test_scales_along_the_input_are_refused(lab):
    model = lab.quantize(conv(lab, 4, (6, 6), 4, (3, 3)))
    for node in model.graph.node:
        if node.output[0] == "w_dq":
            node.attribute[0].i = 1

    with pytest.raises(UnsupportedOperatorError, match="axis 1"):
        lower(model)


@pytest.mark.parametrize(("padding", "stride"), [((1, 1), 1), ((0, 0), 2), ((2, 1), 2)])
def test_convolution_over_one_axis(lab, padding, stride):
    weight = lab.rng.normal(size=(5, 3, 3)).astype(np.float32)
    bias = lab.rng.normal(size=5).astype(np.float32)

    model = lab.one("Conv", (1, 3, 9), [weight, bias], pads=padding, strides=[stride])

    # (N, C, L) in and out: only what lies between is held channels last.
    lab.both(model, transposes=2)


def test_convolution_over_three_axes_is_refused(lab):
    weight = np.ones((2, 3, 3, 3, 3), np.float32)

    with pytest.raises(UnsupportedOperatorError, match="5 axes"):
        lower(lab.one("Conv", (1, 3, 8, 8, 8), [weight]))
