"""Where int8 and float meet, and graphs that no placement of ours would make."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
import scipy.special
from ai_edge_litert import schema_py_generated as schema
from onnx import helper

from edgecls.core.errors import GraphError, UnsupportedOperatorError
from edgecls.export.tflite import lower


def weights(lab, *shape):
    return lab.rng.normal(0, 0.3, shape).astype(np.float32)


def two_layers(lab):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "v"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["g"]),
        helper.make_node("Flatten", ["g"], ["y"]),
    ]
    constants = {"w": weights(lab, 6, 3, 3, 3), "v": weights(lab, 5, 6, 3, 3)}
    return lab.graph(nodes, (1, 3, 8, 8), constants)


def test_whole_graph_in_int8(lab, operators):
    lowered = lab.int8_check(lab.quantize(two_layers(lab)))

    assert (lowered.input.dtype, lowered.output.dtype) == ("int8", "int8")
    assert (lowered.quantized, lowered.left_float) == (3, ())
    assert operators(lowered) == {"CONV_2D": 2, "MEAN": 1, "RESHAPE": 1}


def test_float_in_the_middle(lab, operators):
    model = lab.quantize(two_layers(lab), skip=["r"])

    lowered = lab.int8_check(model, left_float=2)

    assert lowered.left_float == ("Conv_0", "Conv_2")
    assert operators(lowered)["DEQUANTIZE"] == 1
    assert operators(lowered)["QUANTIZE"] == 1


def test_float_input_and_output(lab, operators):
    model = lab.quantize(two_layers(lab), skip=["x", "y", "g"])
    inputs = lab.data(model)
    lowered = lower(model)

    (expected,) = lab.onnx(model, inputs)
    found = lab.tflite(lowered, inputs)

    assert (lowered.input.dtype, lowered.output.dtype) == ("float32", "float32")
    assert lowered.left_float == ("Conv_0", "GlobalAveragePool_3")
    assert np.abs(expected - found).max() <= 2e-2 * np.abs(expected).max()


def requantizing(op, same):
    """A graph whose output has another scale than its input, though the operator keeps values."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        op,
        helper.make_node("QuantizeLinear", ["o", "t", "u"], ["oq"]),
        helper.make_node("DequantizeLinear", ["oq", "t", "u"], ["y"]),
    ]
    constants = {"s": np.float32(0.02), "z": np.int8(5)}
    other = ("s", "z") if same else ("t", "u")
    nodes[3].input[1:] = nodes[4].input[1:] = other
    if not same:
        constants |= {"t": np.float32(0.05), "u": np.int8(-30)}
    return nodes, constants


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize(
    "op",
    [
        helper.make_node("MaxPool", ["d"], ["o"], kernel_shape=[2, 2]),
        helper.make_node("AveragePool", ["d"], ["o"], kernel_shape=[2, 2]),
        helper.make_node("Flatten", ["d"], ["o"]),
        helper.make_node("Transpose", ["d"], ["o"], perm=[0, 2, 3, 1]),
    ],
    ids=lambda op: op.op_type,
)
def test_scales_are_never_changed_silently(lab, operators, op, same):
    nodes, constants = requantizing(op, same)
    model = lab.graph(nodes, (1, 3, 6, 6), constants)

    lowered = lab.int8_check(model, transposes=lower(model).transposes - (op.op_type != "Flatten"))

    assert operators(lowered)["QUANTIZE"] == (not same)


def test_concat_of_other_scales_is_requantized(lab, operators):
    nodes = [
        helper.make_node("Tanh", ["x"], ["t"]),
        helper.make_node("Concat", ["x", "t"], ["y"], axis=1),
    ]
    lowered = lab.int8_check(lab.quantize(lab.graph(nodes, (1, 3, 4, 4))))

    assert operators(lowered)["QUANTIZE"] == 1


def test_scales_are_kept_to_the_letter(lab):
    model = lab.quantize(two_layers(lab))
    given = {
        np.frombuffer(t.raw_data, np.float32)[0].tobytes()
        for t in model.graph.initializer
        if t.name in {"x_s", "r_s", "d_s", "y_s"}
    }
    graph = schema.ModelT.InitFromPackedBuf(lower(model).data).subgraphs[0]
    kept = {
        np.float32(t.quantization.scale[0]).tobytes()
        for t in graph.tensors
        if t.quantization is not None and t.quantization.scale is not None
    }

    assert given <= kept


def test_weights_that_the_graph_quantizes_itself(lab):
    """Float weights behind Q and DQ, as quantization-aware training leaves them."""
    constants = {
        "w": weights(lab, 4, 3, 3, 3), "ws": np.full(4, 0.01, np.float32),
        "wz": np.zeros(4, np.int8), "s": np.float32(0.03), "z": np.int8(-7), "t": np.float32(0.1),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("QuantizeLinear", ["w", "ws", "wz"], ["wq"], axis=0),
        helper.make_node("DequantizeLinear", ["wq", "ws", "wz"], ["wd"], axis=0),
        helper.make_node("Conv", ["d", "wd"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "t", "z"], ["cq"]),
        helper.make_node("DequantizeLinear", ["cq", "t", "z"], ["y"]),
    ]

    assert lab.int8_check(lab.graph(nodes, (1, 3, 8, 8), constants)).quantized == 1


def test_quantized_constants_are_computed_where_only_constants_are_used(lab, operators):
    """A table of positions that the graph computes, with Q/DQ after each step."""
    nodes = [
        helper.make_node("DequantizeLinear", ["p", "s", "z"], ["d"]),
        helper.make_node("Sin", ["d"], ["a"]),
        helper.make_node("Cos", ["d"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("Mul", ["x", "c"], ["y"]),
    ]
    constants = {"p": np.arange(-6, 6, dtype=np.int8), "s": np.float32(0.3), "z": np.int8(0)}
    model = lab.graph(nodes, (1, 12), constants)

    (expected,) = lab.onnx(model, lab.data(model))
    found = lab.tflite(lower(model), lab.data(model))
    assert np.abs(expected - found).max() <= 1e-6
    assert operators(lower(model)) == {"MUL": 1}


def test_scale_computed_at_run_time_is_refused(lab):
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["s"], keepdims=0),
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]

    with pytest.raises(UnsupportedOperatorError, match="one constant"):
        lower(lab.graph(nodes, (1, 4), {"z": np.int8(0)}))


def test_codes_read_at_another_scale_are_refused(lab):
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("Identity", ["q"], ["i"]),
        helper.make_node("DequantizeLinear", ["i", "t", "z"], ["y"]),
    ]
    constants = {"s": np.float32(0.1), "t": np.float32(0.2), "z": np.int8(0)}

    with pytest.raises(UnsupportedOperatorError, match="the same scale"):
        lower(lab.graph(nodes, (1, 4), constants))


def test_4_bit_activations_are_refused(lab):
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    constants = {"s": np.float32(0.1), "z": np.asarray(0, ml_dtypes.int4)}

    with pytest.raises(UnsupportedOperatorError, match="int4"):
        lower(lab.graph(nodes, (1, 4), constants, opset=21))


def test_negative_scale_is_refused(lab):
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    constants = {"s": np.float32(-0.1), "z": np.int8(0)}

    with pytest.raises(GraphError, match="positive float32 scale"):
        lower(lab.graph(nodes, (1, 4), constants))


def pairs(body, opset=20, **constants):
    """A graph of text; what it reads beside x are constants."""
    head = f'<ir_version: 10, opset_import: ["" : {opset}]>\nnet (float[1,4,6,6] x) => (float[N] y)'
    model = onnx.parser.parse_model(f"{head} {{ {body} }}")
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    model.graph.output[0].type.tensor_type.ClearField("shape")
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    )
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def answers(lab, lowered, inputs):
    found = lab.tflite(lowered, inputs)
    if found.dtype == np.float32:
        return found
    scale, zero_point = lab.output_params(lowered)
    return (found.astype(np.float32) - zero_point) * np.float32(scale)


PAIR = "q = QuantizeLinear (x, s, z)\n d = DequantizeLinear (q, s, z)\n"
END = "p = QuantizeLinear (o, t, z)\n e = DequantizeLinear (p, t, z)\n y = Flatten (e)"


@pytest.mark.parametrize("ratio", [0.2, 1.0])
@pytest.mark.parametrize(
    ("operator", "grid"),
    [
        ("Sigmoid (d)", 1 / 256),
        ("Tanh (d)", 1 / 128),
        ("Softmax <axis=1> (d)", 1 / 256),
        ("AveragePool <kernel_shape=[2,2], strides=[2,2]> (d)", 0.02),
        ('Resize <mode="linear"> (d, "", two)', 0.02),
    ],
)
def test_a_scale_finer_than_the_kernels_grid_is_kept_in_float(lab, operator, grid, ratio):
    """Codes on the grid of the kernel would be wrong by steps of the scale that is wanted."""
    model = pairs(
        PAIR + f"o = {operator}\n" + END, s=np.float32(0.02), z=np.int8(0),
        t=np.float32(grid * ratio), two=np.array([1, 1, 2, 2], np.float32),
    )  # fmt: skip
    inputs = lab.data(model)
    (expected,) = lab.onnx(model, inputs)
    lowered = lower(model)
    steps = np.abs(expected - answers(lab, lowered, inputs)) / np.float32(grid * ratio)

    assert steps.max() < 1.5
    assert len(lowered.left_float) == (ratio < 1)


@pytest.mark.parametrize("fill", [None, 0, 3, -30])
@pytest.mark.parametrize("unsigned", [False, True])
def test_codes_are_padded_with_a_code(lab, fill, unsigned):
    dtype, shift = (np.uint8, 128) if unsigned else (np.int8, 0)
    model = pairs(
        "q = QuantizeLinear (x, s, z)\n"
        + ("o = Pad (q, pads, fill)\n" if fill is not None else "o = Pad (q, pads)\n")
        + "e = DequantizeLinear (o, s, z)\n y = Flatten (e)",
        s=np.float32(0.05), z=dtype(3 + shift), pads=np.array([0, 0, 1, 2, 0, 0, 2, 1]),
        fill=dtype((fill or 0) + shift),
    )  # fmt: skip
    inputs = lab.data(model)
    (expected,) = lab.onnx(model, inputs)

    np.testing.assert_array_equal(answers(lab, lower(model), inputs), expected)


def test_one_scale_in_a_vector_is_the_whole_tensors(lab):
    """The axis is then of no account: a depthwise convolution's second is one channel."""
    codes = lab.rng.integers(-127, 128, (4, 1, 3, 3)).astype(np.int8)
    model = pairs(
        PAIR + "w = DequantizeLinear (c, v, k)\n o = Conv <group=4> (d, w)\n" + END,
        s=np.float32(0.03), z=np.int8(0), t=np.float32(0.05), c=codes,
        v=np.array([0.01], np.float32), k=np.array([0], np.int8),
    )  # fmt: skip
    inputs = lab.data(model)
    (expected,) = lab.onnx(model, inputs)
    lowered = lower(model)

    assert lowered.left_float == ()
    assert np.abs(expected - answers(lab, lowered, inputs)).max() <= 0.0501


def test_erf_alone(lab):
    model = lab.one("Erf", (1, 3, 20, 20))
    (found,) = [lab.tflite(lower(model), lab.data(model))]

    expected = scipy.special.erf(lab.data(model).astype(np.float64))
    np.testing.assert_allclose(found, expected, atol=1e-6)
