"""Operators on two values: broadcasting over layouts, constants, fused activations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from edgecls.export.tflite import lower


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Max", "Min"])
@pytest.mark.parametrize("shape", [(1, 6), (1, 3, 4, 5)])
def test_two_activations(lab, op, shape):
    nodes = [
        helper.make_node("Sigmoid", ["x"], ["s"]),
        helper.make_node(op, ["x", "s"], ["y"]),
    ]
    model = lab.graph(nodes, shape)

    assert lab.both(model)[1].left_float == ()


@settings(max_examples=40, deadline=None)
@given(
    op=st.sampled_from(["Add", "Sub", "Mul", "Div", "Max", "Min"]),
    mask=st.lists(st.booleans(), min_size=4, max_size=4),
    rank=st.integers(0, 4),
    first=st.booleans(),
)
def test_constant_operand(lab, op, mask, rank, first):
    shape = (1, 3, 4, 5)
    full = [size if keep else 1 for size, keep in zip(shape, mask, strict=True)]
    constant = lab.rng.uniform(0.5, 2, full[4 - rank :]).astype(np.float32)
    inputs = ["c", "x"] if first and op != "Div" else ["x", "c"]
    nodes = [helper.make_node(op, inputs, ["y"])]

    lab.float_check(lab.graph(nodes, shape, {"c": constant}))


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul"])
@pytest.mark.parametrize("number", [0.37, -1.5, 0.0])
def test_one_number_is_exact_in_int8(lab, op, number):
    model = lab.one(op, (1, 3, 4, 5), [np.float32(number)])

    assert lab.int8_check(lab.quantize(model)).quantized == 1


def test_unquantized_constant_stays_float_and_is_reported(lab):
    constant = lab.rng.normal(size=(3, 1, 1)).astype(np.float32)
    model = lab.quantize(lab.one("Mul", (1, 3, 4, 5), [constant]))

    assert lab.int8_check(model, left_float=1).left_float == ("Mul_0",)


@pytest.mark.parametrize("zero_point", [0, -20])
def test_quantized_constant(lab, zero_point):
    constants = {
        "xs": np.float32(0.05), "z": np.int8(3), "ys": np.float32(0.08),
        "c": lab.rng.integers(-127, 127, (3, 1, 1)).astype(np.int8), "cs": np.float32(0.01),
        "cz": np.int8(zero_point),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "xs", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["c", "cs", "cz"], ["cd"]),
        helper.make_node("Add", ["d", "cd"], ["a"]),
        helper.make_node("QuantizeLinear", ["a", "ys", "z"], ["aq"]),
        helper.make_node("DequantizeLinear", ["aq", "ys", "z"], ["y"]),
    ]

    assert lab.int8_check(lab.graph(nodes, (1, 3, 4, 5), constants)).quantized == 1


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul"])
def test_relu_is_fused(lab, operators, op):
    nodes = [
        helper.make_node("Tanh", ["x"], ["t"]),
        helper.make_node(op, ["x", "t"], ["a"]),
        helper.make_node("Relu", ["a"], ["y"]),
    ]

    for lowered in lab.both(lab.graph(nodes, (1, 3, 4, 5))):
        assert operators(lowered)["RELU"] == 0


def test_relu_on_a_value_that_others_read_is_not_fused(lab, operators):
    nodes = [
        helper.make_node("Add", ["x", "x"], ["a"]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Mul", ["r", "a"], ["y"]),
    ]

    for lowered in lab.both(lab.graph(nodes, (1, 6))):
        assert operators(lowered)["RELU"] == 1


def test_operand_of_a_lower_rank(lab):
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["m"], keepdims=0),
        helper.make_node("Sub", ["x", "m"], ["y"]),
    ]
    model = lab.graph(nodes, (1, 3, 4, 5), {"axes": np.asarray([0, 1], np.int64)})

    lab.both(model)


def test_squeeze_and_excite(lab, operators):
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["p"]),
        helper.make_node("Conv", ["p", "w"], ["c"]),
        helper.make_node("Sigmoid", ["c"], ["s"]),
        helper.make_node("Mul", ["x", "s"], ["m"]),
        helper.make_node("GlobalAveragePool", ["m"], ["g"]),
        helper.make_node("Flatten", ["g"], ["y"]),
    ]
    weight = lab.rng.normal(size=(6, 6, 1, 1)).astype(np.float32)

    for lowered in lab.both(lab.graph(nodes, (1, 6, 5, 5), {"w": weight}), steps=2):
        assert operators(lowered)["TRANSPOSE"] == 0


@pytest.mark.parametrize("op", ["Max", "Min"])
@pytest.mark.parametrize("names", [["x"], ["x", "s", "c"], ["one", "c", "x", "s"]])
@pytest.mark.parametrize("shape", [(1, 6), (1, 3, 4, 6)])
def test_extremum_of_any_number(lab, op, names, shape):
    nodes = [
        helper.make_node("Sigmoid", ["x"], ["s"]),
        helper.make_node(op, names, ["m"]),
        helper.make_node("Add", ["m", "s"], ["y"]),
    ]
    constants = {"c": lab.rng.normal(size=6).astype(np.float32), "one": np.float32(0.25)}

    for lowered in lab.both(lab.graph(nodes, shape, constants), steps=1):
        assert lowered.left_float == ()


def test_extremum_of_equal_parameters_needs_no_others(lab, operators):
    nodes = [
        helper.make_node("Split", ["x"], ["a", "b"], axis=1, num_outputs=2),
        helper.make_node("Max", ["a", "b"], ["y"]),
    ]
    model = lab.quantize(lab.graph(nodes, (1, 6)), skip=["y"])

    lowered = lower(model)
    (expected,) = lab.onnx(model, lab.data(model))

    assert operators(lowered) == {"SPLIT": 1, "MAXIMUM": 1}
    scale, zero_point = lab.output_params(lowered)
    found = (lab.tflite(lowered, lab.data(model)).astype(float) - zero_point) * scale
    assert np.abs(found - expected).max() < 1e-6
