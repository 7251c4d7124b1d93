from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from edgecls.calibration.placement import place_weights
from edgecls.calibration.scheme import weight_scales

GRAPH = """
<ir_version: 10, opset_import: ["" : 20]>
net (float[batch,32,8,8] input) => (float[batch,20] logits)
{
    a = Conv <kernel_shape=[1,1]> (input, w_a)
    b = Conv <kernel_shape=[1,1]> (input, w_b)
    sum = Add (a, b)
    c = Conv <kernel_shape=[8,8], group=32> (sum, w_c)
    flat = Flatten (c)
    d = Gemm <transB=1> (flat, w_d, b_d)
    logits = Gemm <transB=1> (d, w_e)
}
"""


def normal(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


@pytest.fixture
def model() -> onnx.ModelProto:
    made = onnx.parser.parse_model(GRAPH)
    constants = {
        "w_a": normal(32, 32, 1, 1), "w_b": normal(32, 32, 1, 1), "w_c": normal(32, 1, 8, 8),
        "w_d": normal(40, 32), "b_d": normal(40), "w_e": normal(20, 40),
    }  # fmt: skip
    made.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in constants.items())
    return onnx.shape_inference.infer_shapes(made, strict_mode=True)


def behind(model: onnx.ModelProto, name: str) -> onnx.NodeProto | None:
    return next((node for node in model.graph.node if name in node.output), None)


def node_of(model: onnx.ModelProto, output: str) -> onnx.NodeProto:
    found = behind(model, output)
    assert found is not None
    return found


def test_only_large_weights_are_quantized(model: onnx.ModelProto) -> None:
    placed = place_weights(model)
    constants = {t.name: numpy_helper.to_array(t) for t in placed.graph.initializer}
    operators = Counter(node.op_type for node in placed.graph.node)

    # 1,024, 1,024, 2,048 and 1,280 numbers; the last layer has 800.
    assert operators["DequantizeLinear"] == 4
    assert "DynamicQuantizeLinear" not in operators
    assert node_of(placed, "logits").input[1] == "w_e"
    for output, axis in (("a", 0), ("b", 0), ("c", 0), ("d", 0)):
        dequantize = behind(placed, node_of(placed, output).input[1])
        assert dequantize is not None
        codes, scales = (constants[name] for name in dequantize.input[:2])
        weights = numpy_helper.to_array(
            next(t for t in model.graph.initializer if t.name == f"w_{output}")
        )
        assert codes.dtype == np.int8
        assert codes.min() >= -127
        assert np.array_equal(scales, weight_scales(weights, axis=axis))
        along = scales.reshape(-1, *[1] * (codes.ndim - 1))
        assert np.abs(codes * along - weights).max() <= 0.5001 * scales.max()
    assert "w_a" not in constants
    assert node_of(placed, "d").input[2] == "b_d"


def test_what_runs_with_int8_weights_quantizes_its_input_once(model: onnx.ModelProto) -> None:
    placed = place_weights(model, dynamic="layers")
    operators = Counter(node.op_type for node in placed.graph.node)

    # Both convolutions read one; the depthwise convolution and the small layer read floats.
    assert operators["DynamicQuantizeLinear"] == 2
    assert node_of(placed, "a").input[0] == node_of(placed, "b").input[0] != "input"
    assert node_of(placed, "c").input[0] == "sum"
    assert node_of(placed, "logits").input[0] == "d"


def test_the_graph_is_left_as_it_is(model: onnx.ModelProto) -> None:
    before = model.SerializeToString()
    place_weights(model, dynamic="layers")

    assert model.SerializeToString() == before
