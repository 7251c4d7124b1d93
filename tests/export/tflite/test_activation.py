"""Operators on one value."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

SHAPES = [(1, 12), (1, 3, 4, 5)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("Relu", {}), ("Sigmoid", {}), ("Tanh", {}), ("Softmax", {"axis": -1}),
        ("Softmax", {"axis": 1}), ("HardSwish", {}), ("LeakyRelu", {"alpha": 0.1}), ("Elu", {}),
        ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}), ("Abs", {}),
        ("Gelu", {}), ("Gelu", {"approximate": "tanh"}),
    ],
)  # fmt: skip
def test_in_float_and_in_int8(lab, shape, op, attributes):
    model = lab.one(op, shape, **attributes)
    channels_last = op == "Softmax" and len(shape) == 4 and attributes["axis"] == -1

    lab.float_check(model, transposes=channels_last)
    # hard-swish and hard-sigmoid round twice inside.
    lowered = lab.int8_check(
        lab.quantize(model), steps=1 + ("Hard" in op), transposes=channels_last
    )

    assert lowered.quantized == 1


def test_exponential(lab):
    assert all(lowered.left_float == () for lowered in lab.both(lab.one("Exp", (1, 3, 4, 5))))


@pytest.mark.parametrize("op", ["Floor", "Reciprocal", "Softplus", "Mish"])
def test_in_float(lab, op):
    lab.float_check(lab.one(op, (1, 3, 4, 5)))


@pytest.mark.parametrize("op", ["Sqrt", "Log"])
def test_of_positive_values(lab, op):
    nodes = [helper.make_node("Exp", ["x"], ["e"]), helper.make_node(op, ["e"], ["y"])]

    lab.both(lab.graph(nodes, (1, 3, 4, 5)), left_float=op == "Sqrt", steps=2)


def test_negation_is_exact(lab):
    _, lowered = lab.both(lab.one("Neg", (1, 3, 4, 5)))

    assert lowered.quantized == 1


def test_hard_sigmoid_of_another_slope(lab):
    model = lab.one("HardSigmoid", (1, 6), alpha=0.3, beta=0.4)

    lab.float_check(model)
    # Two roundings inside, as with the usual slope.
    assert lab.int8_check(lab.quantize(model), steps=2).left_float == ()


def test_prelu(lab):
    slopes = lab.rng.uniform(-0.5, 1, (3, 1, 1)).astype(np.float32)
    model = lab.one("PRelu", (1, 3, 4, 5), [slopes])

    lab.float_check(model)
    # Slopes that nobody quantized are not rounded.
    assert lab.int8_check(lab.quantize(model), left_float=1).left_float == ("PRelu_0",)


def test_prelu_of_one_slope(lab):
    lowered = lab.int8_check(lab.quantize(lab.one("PRelu", (1, 3, 4, 5), [np.float32([0.3])])))

    assert lowered.quantized == 1


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 6.0), (-1.0, 1.0), (0.0, None), (-0.5, 0.25), (None, 0.3), (None, None)]
)
def test_clip(lab, low, high):
    bounds = [None if limit is None else np.float32(limit) for limit in (low, high)]
    model = lab.one("Clip", (1, 3, 4, 5), bounds)

    lowered = lab.both(model)[1]

    assert lowered.quantized == 1


def test_clip_to_the_range_of_its_codes_is_no_operator(lab, operators):
    model = lab.quantize(lab.one("Clip", (1, 3, 4, 5), [np.float32(-0.5), np.float32(0.25)]))

    # The input has its own parameters: a QUANTIZE saturates.
    assert set(operators(lab.int8_check(model))) <= {"QUANTIZE", "TRANSPOSE"}


def test_clip_within_the_range_of_its_codes(lab, operators):
    nodes = [
        helper.make_node("Clip", ["x", "low", "high"], ["c"]),
        helper.make_node("Mul", ["c", "c"], ["y"]),
    ]
    numbers = {"low": np.float32(-0.5), "high": np.float32(0.25)}
    model = lab.quantize(lab.graph(nodes, (1, 12), numbers))
    for tensor in model.graph.initializer:
        if tensor.name == "c_s":
            tensor.raw_data = np.float32(1 / 50).tobytes()

    found = operators(lab.int8_check(model))

    assert (found["MAXIMUM"], found["MINIMUM"]) == (1, 1)


@pytest.mark.parametrize("op", ["Relu", "Sigmoid"])
def test_another_output_scale_is_requantized(lab, operators, op):
    model = lab.quantize(lab.one(op, (1, 12)))
    for tensor in model.graph.initializer:
        if tensor.name == "y_s":
            tensor.raw_data = np.float32(1 / 100).tobytes()

    lowered = lab.int8_check(model)

    assert operators(lowered)["QUANTIZE"] == (op == "Sigmoid")


@pytest.mark.parametrize("alpha", [0.5, 2.0])
def test_elu_of_another_alpha(lab, alpha):
    lab.both(lab.one("Elu", (1, 3, 4, 5), alpha=alpha), left_float=1)


def test_softplus_does_not_overflow(lab):
    nodes = [
        helper.make_node("Mul", ["x", "big"], ["b"]),
        helper.make_node("Softplus", ["b"], ["y"]),
    ]

    lab.float_check(lab.graph(nodes, (1, 12), {"big": np.float32(1000)}))


def test_gelu_written_out_is_fused(lab, operators):
    nodes = [
        helper.make_node("Div", ["x", "root"], ["d"]),
        helper.make_node("Erf", ["d"], ["e"]),
        helper.make_node("Add", ["e", "one"], ["p"]),
        helper.make_node("Mul", ["x", "p"], ["m"]),
        helper.make_node("Mul", ["m", "half"], ["y"]),
    ]
    numbers = {"root": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5)}

    lowered = lab.float_check(lab.graph(nodes, (1, 12), numbers))

    assert operators(lowered) == {"GELU": 1}
