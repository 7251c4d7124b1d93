"""The scheme of desktop CPUs: the Raspberry Pi's scales, unsigned codes, biases in int32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from edgecls.calibration.collect import collect_ranges
from edgecls.calibration.placement import adopt_qdq, place_qdq
from edgecls.core.values import QuantScheme
from edgecls.targets import TARGETS

SIGNED = TARGETS["raspberry-pi"].scheme
UNSIGNED = TARGETS["desktop-cpu"].scheme

NET = """
<ir_version: 10, opset_import: ["" : 20]>
net (float[batch,3,8,8] input) => (float[batch,5] logits)
{
    c1 = Conv <kernel_shape=[3,3], pads=[1,1,1,1]> (input, w1, b1)
    s1 = Sigmoid (c1)
    m1 = Mul (c1, s1)
    c2 = Conv <kernel_shape=[3,3], pads=[1,1,1,1]> (m1, w2)
    sum = Add (c2, m1)
    half = Mul (sum, factor)
    mean = ReduceMean <keepdims=0> (half, axes)
    logits = Gemm <transB=1> (mean, w3, b3)
}
"""


@pytest.fixture(scope="module")
def net() -> onnx.ModelProto:
    draw = np.random.default_rng(0)
    model = onnx.parser.parse_model(NET)
    arrays = {
        "w1": draw.normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32),
        "b1": draw.normal(0, 0.3, 4).astype(np.float32),
        "w2": draw.normal(0, 0.3, (4, 4, 3, 3)).astype(np.float32),
        "factor": np.array([[[0.5]], [[-0.25]], [[2.0]], [[1.0]]], np.float32),
        "w3": draw.normal(0, 0.3, (5, 4)).astype(np.float32),
        "b3": draw.normal(0, 0.3, 5).astype(np.float32),
        "axes": np.array([2, 3], np.int64),
    }
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()
    )
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def images() -> list[tuple[str, NDArray[np.float32]]]:
    draw = np.random.default_rng(7)
    return [(f"{i:02x}", draw.normal(size=(1, 3, 8, 8)).astype(np.float32)) for i in range(8)]


def placed(model: onnx.ModelProto, scheme: QuantScheme) -> onnx.ModelProto:
    table = collect_ranges(model, images(), method="minmax", seed=0)
    return place_qdq(model, table, scheme).model


def run(model: onnx.ModelProto, *, optimised: bool = False) -> NDArray[np.float32]:
    level = ort.GraphOptimizationLevel
    options = ort.SessionOptions()
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimised else level.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.concatenate([session.run(None, {"input": image})[0] for _, image in images()])


def pairs(model: onnx.ModelProto) -> dict[str, tuple[float, int, np.dtype[np.generic]]]:
    """Return what quantizes each activation: scale, zero point, type of the codes."""
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    return {
        node.input[0]: (
            float(constants[node.input[1]]),
            int(constants[node.input[2]]),
            constants[node.input[2]].dtype,
        )
        for node in model.graph.node
        if node.op_type == "QuantizeLinear"
    }


def dequantized(model: onnx.ModelProto) -> dict[str, list[NDArray[np.generic]]]:
    """Return codes, scales and zero points of the constants, by the start of their name."""
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    return {
        node.output[0].split("_")[0]: [constants[name] for name in node.input]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in constants
    }


def test_scales_stay_and_codes_move_by_128(net: onnx.ModelProto) -> None:
    signed, unsigned = pairs(placed(net, SIGNED)), pairs(placed(net, UNSIGNED))

    assert signed.keys() == unsigned.keys()
    assert len(signed) == 9
    for name, (scale, zero_point, dtype) in signed.items():
        assert dtype == np.int8
        assert unsigned[name] == (scale, zero_point + 128, np.uint8), name


def test_weights_stay_signed_and_operands_move(net: onnx.ModelProto) -> None:
    signed, unsigned = dequantized(placed(net, SIGNED)), dequantized(placed(net, UNSIGNED))

    for name in ("w1", "w2", "w3"):
        assert all(map(np.array_equal, signed[name], unsigned[name]))
        assert unsigned[name][0].dtype == np.int8
    codes, scale, zero_point = unsigned["factor"]
    assert (codes.dtype, zero_point.dtype) == (np.uint8, np.uint8)
    values = (codes.astype(np.float64) - int(zero_point)) * float(scale)  # type: ignore[arg-type]
    assert np.abs(values.ravel() - [0.5, -0.25, 2.0, 1.0]).max() <= 0.5001 * float(scale)  # type: ignore[arg-type]


def test_biases_are_codes_of_the_sum_of_products(net: onnx.ModelProto) -> None:
    graph = placed(net, UNSIGNED)
    found = dequantized(graph)

    for name, weights, source in (("b1", "w1", "input"), ("b3", "w3", "mean")):
        codes, scale, zero_point = found[name]
        assert codes.dtype == np.int32
        assert not zero_point.any()
        np.testing.assert_array_equal(
            scale, (pairs(graph)[source][0] * found[weights][1].astype(np.float64)).astype("f4")
        )
        bias = next(t for t in net.graph.initializer if t.name == name)
        error = codes * scale.astype(np.float64) - onnx.numpy_helper.to_array(bias)
        assert (np.abs(error) <= scale.astype(np.float64) / 2 * (1 + 1e-6)).all()


def test_it_computes_what_signed_codes_do(net: onnx.ModelProto) -> None:
    """But for biases, which are rounded to a hundredth of a step."""
    signed, unsigned = run(placed(net, SIGNED)), run(placed(net, UNSIGNED))
    step = pairs(placed(net, SIGNED))["logits_float"][0]

    assert np.abs(signed - unsigned).max() <= 1.001 * step
    assert (signed == unsigned).mean() > 0.9


def test_kernels_of_integers_take_the_convolutions(net: onnx.ModelProto, tmp_path: Path) -> None:
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3  # it warns that such a file is for this machine
    model = placed(net, UNSIGNED)
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    operators = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert operators.count("QLinearConv") == 2
    assert operators.count("QGemm") == 1
    assert "Conv" not in operators
    step = pairs(model)["logits_float"][0]
    assert np.abs(run(model) - run(model, optimised=True)).max() <= 2.001 * step


def test_a_graph_that_came_quantized_keeps_its_scales(net: onnx.ModelProto) -> None:
    theirs = placed(net, SIGNED)

    ours = adopt_qdq(theirs, UNSIGNED).model

    assert pairs(ours) == {
        name: (scale, zero_point + 128, np.uint8)
        for name, (scale, zero_point, _) in pairs(theirs).items()
    }


def test_unsigned_codes_are_asymmetric() -> None:
    with pytest.raises(ValueError, match="unsigned activations are asymmetric"):
        QuantScheme(activations="symmetric", placement="fused", codes="uint8")


@pytest.mark.parametrize(
    "between",
    ["MaxPool <kernel_shape=[2,2], strides=[2,2]> (codes)", "Transpose <perm=[0,1,3,2]> (codes)"],
)
def test_codes_that_another_operator_reads_stay_signed(between: str) -> None:
    """A graph of another tool may pool or turn its codes: MaxPool of codes is one of int8."""
    model = onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["" : 20]>
        net (float[1,3,8,8] input) => (float[1,3,"h","w"] output)
        <float scale = {{0.05}}, int8 zero_point = {{-3}}>
        {{
            codes = QuantizeLinear (input, scale, zero_point)
            moved = {between}
            inner = DequantizeLinear (moved, scale, zero_point)
            again = QuantizeLinear (inner, scale, zero_point)
            output = DequantizeLinear (again, scale, zero_point)
        }}
    """)
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)

    ours = adopt_qdq(model, UNSIGNED).model

    assert {name: dtype for name, (_, _, dtype) in pairs(ours).items()} == {
        "input": np.int8, "inner": np.uint8,
    }  # fmt: skip
    assert np.array_equal(run(ours), run(model))


@pytest.mark.parametrize("transposed", [0, 1])
def test_one_bias_for_channels_of_several_scales_stays_float(transposed: int) -> None:
    draw = np.random.default_rng(3)
    model = onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["" : 20]>
        net (float[1,3,8,8] input) => (float[1,5] output)
        <float scale = {{0.05}}, int8 zero_point = {{-3}}, float[1] bias = {{0.5}}>
        {{
            codes = QuantizeLinear (input, scale, zero_point)
            inner = DequantizeLinear (codes, scale, zero_point)
            mean = ReduceMean <keepdims=0> (inner, axes)
            codes2 = QuantizeLinear (mean, scale, zero_point)
            inner2 = DequantizeLinear (codes2, scale, zero_point)
            weights = DequantizeLinear <axis={1 - transposed}> (w, scales, zeros)
            output = Gemm <transB={transposed}> (inner2, weights, bias)
        }}
    """)
    weights = draw.integers(-127, 128, (3, 5)).astype(np.int8)
    arrays = {
        "w": weights.T.copy() if transposed else weights,
        "scales": draw.uniform(0.01, 0.02, 5).astype(np.float32),
        "zeros": np.zeros(5, np.int8),
        "axes": np.array([2, 3], np.int64),
    }
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()
    )
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)

    ours = adopt_qdq(model, UNSIGNED).model

    assert np.allclose(run(ours), run(model), rtol=0, atol=1e-6)
