"""16x8: int16 activations, int8 weights."""

from __future__ import annotations

import re

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from onnx import helper, numpy_helper

from edgecls.core.errors import GraphError, UnsupportedOperatorError
from edgecls.core.preprocess import PRESETS
from edgecls.export.tflite import for_phones, lower, try_in_subprocess

IMAGE = (1, 3, 8, 8)
ONE_STEP, TWO_STEPS, THREE_STEPS = 1, 2, 3


def integers(*numbers):
    return np.asarray(numbers, np.int64)


def weights(*shape):
    return np.random.default_rng(1).normal(0, 0.3, shape).astype(np.float32)


# Operator, shape of x, constants, attributes.
COMPUTED = [
    ("Relu", IMAGE, (), {}),
    ("Sigmoid", IMAGE, (), {}),
    ("LeakyRelu", IMAGE, (), {"alpha": 0.1}),
    ("HardSigmoid", IMAGE, (), {"alpha": 1 / 6, "beta": 0.5}),
    ("Abs", IMAGE, (), {}),
    ("GlobalAveragePool", (1, 3, 56, 56), (), {}),
    ("GlobalMaxPool", IMAGE, (), {}),
    ("AveragePool", IMAGE, (), {"kernel_shape": [3, 3], "strides": [2, 2]}),
    ("AveragePool", IMAGE, (), {"kernel_shape": [3, 3], "pads": [1] * 4}),
    ("MaxPool", IMAGE, (), {"kernel_shape": [3, 3], "pads": [1] * 4, "strides": [2, 2]}),
    ("ReduceMean", IMAGE, (integers(1),), {}),
    ("ReduceSum", IMAGE, (integers(2, 3),), {}),
    ("ReduceMax", IMAGE, (integers(1),), {}),
    ("ReduceMin", IMAGE, (integers(1),), {}),
    ("Transpose", IMAGE, (), {"perm": [0, 2, 3, 1]}),
    ("Pad", IMAGE, (integers(0, 0, 1, 1, 0, 0, 1, 1),), {}),
    ("Pad", IMAGE, (integers(0, 0, 1, 1, 0, 0, 1, 1), np.float32(0.5)), {}),
    ("Slice", IMAGE, (integers(1), integers(7), integers(2)), {}),
    ("Slice", IMAGE, (integers(0), integers(8), integers(2), integers(2)), {}),
    ("Gather", IMAGE, (integers(2, 0),), {"axis": 1}),
    ("Expand", (1, 3, 1, 8), (integers(1, 3, 4, 8),), {}),
    ("Resize", IMAGE, (None, None, integers(1, 3, 16, 16)), {"mode": "linear"}),
    ("Resize", IMAGE, (None, None, integers(1, 3, 16, 16)), {"mode": "nearest"}),
    ("Add", IMAGE, (np.float32(0.7),), {}),
    ("Sub", IMAGE, (np.float32(0.7),), {}),
    ("Mul", IMAGE, (np.float32(0.7),), {}),
    ("Conv", IMAGE, (weights(5, 3, 3, 3), weights(5)), {"pads": [1] * 4}),
    ("Conv", IMAGE, (weights(5, 3, 3, 3), weights(5)), {"dilations": [2, 2]}),
    ("Conv", (1, 64, 8, 8), (weights(16, 64, 3, 3), weights(16)), {"strides": [2, 2]}),
    ("Conv", IMAGE, (weights(3, 1, 3, 3),), {"group": 3, "pads": [1] * 4}),
    ("Conv", IMAGE, (weights(6, 1, 3, 3),), {"group": 3, "dilations": [2, 2]}),
    ("Conv", (1, 4, 8, 8), (weights(6, 2, 3, 3),), {"group": 2}),
    ("Conv", (1, 3, 16), (weights(5, 3, 3), weights(5)), {}),
    ("Gemm", (1, 640), (weights(10, 640), weights(10)), {"transB": 1}),
    ("MatMul", (1, 7, 64), (weights(64, 10),), {}),
]  # fmt: skip

# The kernel is missing, or is not right.
FLOAT = [
    ("HardSwish", IMAGE, {}),
    ("Elu", IMAGE, {}),
    ("Gelu", IMAGE, {}),
    ("Exp", IMAGE, {}),
    ("Softmax", (1, 200), {"axis": -1}),
    ("DepthToSpace", (1, 4, 4, 4), {"blocksize": 2}),
    ("SpaceToDepth", IMAGE, {"blocksize": 2}),
]  # fmt: skip


def check(lab, model, *, steps=ONE_STEP, left_float=()):
    """Lower a 16-bit graph and hold it against ONNX Runtime, in steps of 1/32767 of the range."""
    lowered = lower(model)
    difference = lab.steps(model, lowered, lab.data(model, 10))

    assert lowered.left_float == left_float
    assert lowered.output.dtype == "int16"
    assert difference.max() <= steps
    return lowered


@pytest.mark.parametrize(("op", "shape", "constants", "attributes"), COMPUTED)
def test_operator(lab, operators, op, shape, constants, attributes):
    model = lab.quantize(lab.one(op, shape, constants, **attributes), bits=16)

    lowered = check(lab, model)

    assert lowered.input.dtype == "int16"
    assert operators(lowered)["DEQUANTIZE"] == 0


@pytest.mark.parametrize(("op", "shape", "attributes"), FLOAT)
def test_operator_without_a_kernel_is_computed_in_float(lab, operators, op, shape, attributes):
    model = lab.quantize(lab.one(op, shape, **attributes), bits=16)

    lowered = check(lab, model, left_float=(f"{op}_0",))

    assert operators(lowered)["DEQUANTIZE"] == 1
    assert operators(lowered)["QUANTIZE"] == 1


@pytest.mark.parametrize("size", [1e-2, 1.0, 30.0])
@pytest.mark.parametrize("op", ["Sigmoid", "Tanh"])
def test_table_kernels_over_sizes_of_inputs(lab, op, size):
    nodes = [
        helper.make_node("Mul", ["x", "size"], ["m"]),
        helper.make_node(op, ["m"], ["y"]),
    ]
    model = lab.quantize(lab.graph(nodes, (1, 500), {"size": np.float32(size)}), bits=16)

    # One more than the kernel's own: what it is fed may be a step off.
    steps = {"Sigmoid": TWO_STEPS, "Tanh": THREE_STEPS + 1}
    check(lab, model, steps=steps[op])


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul"])
@pytest.mark.parametrize("activation", ["Relu", "Clip"])
def test_two_values_and_a_fused_activation(lab, operators, op, activation):
    nodes = [
        helper.make_node("LeakyRelu", ["x"], ["a"], alpha=0.3),
        helper.make_node(op, ["x", "a"], ["b"]),
        helper.make_node(activation, ["b", "low", "high"][: 3 if activation == "Clip" else 1],
                         ["y"]),
    ]  # fmt: skip
    bounds = {"low": np.float32(0), "high": np.float32(6)} if activation == "Clip" else {}
    lowered = check(lab, lab.quantize(lab.graph(nodes, IMAGE, bounds), bits=16), steps=TWO_STEPS)

    assert set(operators(lowered)) == {"LEAKY_RELU", op.upper(), "TRANSPOSE"}


def test_parts_of_other_scales_are_requantized(lab, operators):
    nodes = [
        helper.make_node("Sigmoid", ["x"], ["a"]),
        helper.make_node("Concat", ["x", "a"], ["y"], axis=1),
    ]
    lowered = check(lab, lab.quantize(lab.graph(nodes, IMAGE), bits=16))

    assert operators(lowered)["QUANTIZE"] == 1


def test_split_and_join(lab):
    nodes = [
        helper.make_node("Split", ["x", "sizes"], ["a", "b"], axis=2),
        helper.make_node("Concat", ["b", "a"], ["y"], axis=2),
    ]
    check(lab, lab.quantize(lab.graph(nodes, IMAGE, {"sizes": integers(3, 5)}), bits=16), steps=0)


def test_product_of_activations(lab):
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["x", "t"], ["y"]),
    ]
    check(lab, lab.quantize(lab.graph(nodes, (1, 3, 6, 7)), bits=16))


def test_versions_are_the_lowest(lab):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1] * 4),
        helper.make_node("Add", ["c", "x"], ["a"]),
        helper.make_node("GlobalAveragePool", ["a"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Gemm", ["f", "v"], ["y"]),
    ]
    constants = {"w": weights(3, 3, 3, 3), "v": weights(3, 4)}
    lowered = lower(lab.quantize(lab.graph(nodes, IMAGE, constants), bits=16))

    op = schema.BuiltinOperator
    parsed = schema.ModelT.InitFromPackedBuf(lowered.data)
    assert {code.builtinCode: code.version for code in parsed.operatorCodes} == {
        op.CONV_2D: 4, op.ADD: 3, op.MEAN: 3, op.RESHAPE: 1, op.FULLY_CONNECTED: 7,
    }  # fmt: skip


@pytest.mark.parametrize("bias", [0.0, 3.0, 1e6])
def test_convolution_against_integers(lab, bias):
    """A bias of 1e6 has more steps than int32: the file's is int64."""
    rng = lab.rng
    addend = (rng.normal(size=5) + bias).astype(np.float32)
    model = lab.quantize(lab.one("Conv", (1, 4, 6, 6), [weights(5, 4, 1, 1), addend]), bits=16)
    lowered, inputs = lower(model), lab.data(model)
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    source, scales = float(constants["x_s"]), constants["c0_s"].astype(np.float64)
    # Exact: integers below 2**53 in float64.
    codes = np.clip(np.rint(inputs / np.float32(source)), -32768, 32767).astype(np.float64)
    held = np.rint(addend / (source * scales))
    total = np.einsum("nihw,oi->nohw", codes, constants["c0_q"][:, :, 0, 0].astype(np.float64))
    total += held[:, None, None]
    rescaled = total * (source * scales / float(constants["y_s"]))[:, None, None]
    expected = np.clip(np.rint(rescaled), -32768, 32767)

    found = lab.tflite(lowered, inputs)

    assert np.abs(found - expected).max() <= ONE_STEP
    parsed = schema.ModelT.InitFromPackedBuf(lowered.data).subgraphs[0]
    (held_type,) = {t.type for t in parsed.tensors if t.name == b"Conv_0_bias"}
    assert held_type == schema.TensorType.INT64
    assert (np.abs(held).max() > 2**31) == (bias > 3)


def test_a_sum_much_finer_than_its_operands_stays_float(lab):
    """The kernel aborts the process where it would have to widen the sum."""
    nodes = [
        helper.make_node("Add", ["x", "near"], ["a"]),
        helper.make_node("Sub", ["a", "x"], ["b"]),
        helper.make_node("Mul", ["b", "b"], ["y"]),
    ]
    near = {"near": np.float32(1e-5)}
    model = lab.quantize(lab.graph(nodes, (1, 12), near), bits=16)
    lowered = lower(model)

    try_in_subprocess(lowered.data)
    assert lowered.left_float == ("Sub_1",)


def test_one_number_added_is_exact(lab):
    """Its scale is not the number itself, which would be too coarse beside small values."""
    nodes = [
        helper.make_node("Mul", ["x", "small"], ["s"]),
        helper.make_node("Add", ["s", "one"], ["y"]),
    ]
    numbers = {"small": np.float32(1e-3), "one": np.float32(1)}
    model = lab.quantize(lab.graph(nodes, (1, 64), numbers), bits=16)

    check(lab, model)


def as_uint16(model):
    """Return a 16-bit graph with its codes 32768 higher, as unsigned."""
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.int16:
            higher = (array.astype(np.int32) + 32768).astype(np.uint16)
            tensor.CopyFrom(numpy_helper.from_array(higher, tensor.name))
    return model


def two_layers(lab):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        helper.make_node("Flatten", ["g"], ["y"]),
    ]
    return lab.graph(nodes, IMAGE, {"w": weights(4, 3, 3, 3)})


def test_uint16_is_the_same_grid(lab):
    signed = lab.quantize(two_layers(lab), bits=16)
    unsigned = as_uint16(lab.quantize(two_layers(lab), bits=16))

    assert lower(unsigned).data == lower(signed).data
    assert np.array_equal(*(lab.onnx(m, lab.data(m))[0] for m in (signed, unsigned)))


@pytest.mark.parametrize("unsigned", [False, True])
def test_an_asymmetric_one_is_refused(lab, unsigned):
    model = lab.quantize(two_layers(lab), bits=16)
    if unsigned:
        model = as_uint16(model)
    for tensor in model.graph.initializer:
        if tensor.name == "r_z":
            shifted = numpy_helper.to_array(tensor) + 5
            tensor.CopyFrom(numpy_helper.from_array(shifted, tensor.name))
    right = 32768 if unsigned else 0

    with pytest.raises(
        UnsupportedOperatorError,
        match=re.escape(f"zero point is {right + 5}, and TFLite's 16-bit activations are symmetric")
        + rf".*\(zero point {right}\)",
    ):
        lower(model)


def test_weights_of_16_bits_are_refused(lab):
    model = lab.quantize(two_layers(lab), bits=16)
    for tensor in model.graph.initializer:
        if tensor.name in ("w_q", "w_z"):
            wide = numpy_helper.to_array(tensor).astype(np.int16)
            tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))

    with pytest.raises((GraphError, UnsupportedOperatorError), match="quantize weights to int8"):
        lower(model)


def test_widths_that_meet(lab, operators):
    """An operator between int8 and int16 has no kernel: it is computed in float."""
    model = lab.quantize(two_layers(lab), bits=16)
    for tensor in model.graph.initializer:
        if tensor.name == "x_z":
            tensor.CopyFrom(numpy_helper.from_array(np.asarray(0, np.int8), tensor.name))
        elif tensor.name == "x_s":
            tensor.CopyFrom(numpy_helper.from_array(np.float32(4 / 127), tensor.name))

    lowered = check(lab, model, left_float=("Conv_0",))

    assert lowered.input.dtype == "int8"
    assert operators(lowered) == {
        "DEQUANTIZE": 1, "CONV_2D": 1, "QUANTIZE": 1, "MEAN": 1, "RESHAPE": 1,
    }  # fmt: skip


def test_the_file_for_phones(lab):
    lowered = lower(lab.quantize(two_layers(lab), bits=16))
    data = for_phones(lowered.data, PRESETS["inception"])
    pixels = lab.rng.integers(0, 256, (1, 8, 8, 3), dtype=np.uint8)
    preprocessed = PRESETS["inception"].normalize(pixels)
    expected = lab.tflite(lowered, preprocessed) * np.float32(lab.output_params(lowered)[0])

    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.set_tensor(source["index"], pixels)
    interpreter.invoke()
    found = interpreter.get_tensor(result["index"])

    assert (source["dtype"], result["dtype"]) == (np.uint8, np.float32)
    assert np.abs(found - expected).max() <= 1e-3 * np.abs(expected).max()
