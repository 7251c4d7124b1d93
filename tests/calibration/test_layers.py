"""Layers left float, against the float graph and against a placement read node by node."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from edgecls.calibration.collect import collect_ranges
from edgecls.calibration.placement import layers_of, place_qdq
from edgecls.core.errors import CalibrationError
from edgecls.core.ranges import RangeTable
from edgecls.core.values import QuantScheme
from edgecls.export.tflite import lower
from edgecls.targets import TARGETS

SCHEMES = {target.scheme: name for name, target in TARGETS.items()}

# A squeeze-and-excite between two convolutions, a skip, a concatenation, and a product.
NET = """
<ir_version: 10, opset_import: ["" : 20]>
net (float[1,3,8,8] input) => (float[1,5] logits)
{
    c1 = Conv <kernel_shape=[3,3], pads=[1,1,1,1]> (input, w1, b1)
    s1 = Sigmoid (c1)
    a1 = Mul (c1, s1)
    mean = ReduceMean <keepdims=1> (a1, axes)
    c2 = Conv <kernel_shape=[1,1]> (mean, w2, b2)
    s2 = Sigmoid (c2)
    a2 = Mul (a1, s2)
    c3 = Conv <kernel_shape=[3,3], pads=[1,1,1,1], group=4> (a2, w3, b3)
    sum = Add (c3, a1)
    r3 = Relu (sum)
    joined = Concat <axis=1> (r3, a2)
    pool = MaxPool <kernel_shape=[2,2], strides=[2,2]> (joined)
    flat = Flatten (pool)
    logits = Gemm <transB=1> (flat, w4, b4)
}
"""
NAMES = ("c1", "c2", "c3", "logits")


@pytest.fixture(scope="module")
def net() -> onnx.ModelProto:
    generator = np.random.default_rng(0)
    shapes = {"w1": (4, 3, 3, 3), "b1": (4,), "w2": (4, 4, 1, 1), "b2": (4,),
              "w3": (4, 1, 3, 3), "b3": (4,), "w4": (5, 128), "b4": (5,)}  # fmt: skip
    model = onnx.parser.parse_model(NET)
    for name, shape in shapes.items():
        array = generator.normal(0, 0.4, shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    axes = np.array([2, 3], np.int64)
    model.graph.initializer.append(onnx.numpy_helper.from_array(axes, "axes"))
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def images() -> list[tuple[str, NDArray[np.float32]]]:
    generator = np.random.default_rng(7)
    return [(f"{n:02x}", generator.normal(size=(1, 3, 8, 8)).astype(np.float32)) for n in range(8)]


@pytest.fixture(scope="module")
def table(net: onnx.ModelProto) -> RangeTable:
    return collect_ranges(net, images(), method="minmax", seed=0)


def run(model: onnx.ModelProto) -> NDArray[np.float32]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options)
    return np.concatenate([session.run(None, {"input": image})[0] for _, image in images()])


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_a_layer_counts_its_products(net: onnx.ModelProto) -> None:
    found = {layer.name: layer for layer in layers_of(net)}

    assert tuple(found) == NAMES
    assert [layer.macs for layer in found.values()] == [
        64 * 4 * 27, 4 * 4, 64 * 4 * 9, 5 * 128,
    ]  # fmt: skip
    assert [layer.weights for layer in found.values()] == [108, 16, 36, 640]
    assert sum(layer.nodes for layer in found.values()) == len(net.graph.node)
    assert found["c1"].nodes == 4  # with its SiLU and the mean of it


@pytest.mark.parametrize("scheme", SCHEMES, ids=SCHEMES.values())
def test_every_layer_left_float_is_the_float_graph(
    net: onnx.ModelProto, table: RangeTable, scheme: QuantScheme
) -> None:
    found = place_qdq(net, table, scheme, NAMES)

    assert operators(found.model) == operators(net)
    assert np.array_equal(run(found.model), run(net))
    assert (found.quantized, found.left_float) == (0, NAMES)


@pytest.mark.parametrize("scheme", SCHEMES, ids=SCHEMES.values())
def test_no_layer_left_float_is_the_whole_placement(
    net: onnx.ModelProto, table: RangeTable, scheme: QuantScheme
) -> None:
    assert place_qdq(net, table, scheme, ()).model == place_qdq(net, table, scheme).model


@pytest.mark.parametrize("scheme", SCHEMES, ids=SCHEMES.values())
@pytest.mark.parametrize("left", NAMES)
def test_a_layer_that_is_left_float_reads_no_codes_as_weights(
    net: onnx.ModelProto, table: RangeTable, scheme: QuantScheme, left: str
) -> None:
    found = place_qdq(net, table, scheme, [left])

    assert left in found.left_float
    assert set(found.left_float) == {left}
    producers = {name: node for node in found.model.graph.node for name in node.output}
    (node,) = [
        node
        for node in found.model.graph.node
        if node.op_type in ("Conv", "Gemm") and node.output[0].removesuffix("_float") == left
    ]
    assert node.input[1] not in producers  # a constant of the float graph
    noise = np.abs(run(found.model) - run(net)).max() / np.abs(run(net)).max()
    assert 0 < noise < 0.1


def test_what_is_made_and_read_in_float_is_not_quantized(
    net: onnx.ModelProto, table: RangeTable
) -> None:
    """Read off the net by hand: the first two layers are float up to what the third reads."""
    scheme = TARGETS["raspberry-pi"].scheme
    found = place_qdq(net, table, scheme, ["c1", "c2"]).model

    quantized = {n.input[0] for n in found.graph.node if n.op_type == "QuantizeLinear"}
    # a1 for the addition; a2 for the convolution, and again at the concatenation's scale.
    assert {name.removesuffix("_float") for name in quantized} == {
        "a1", "a2", "a2_dequantized", "c3", "r3", "joined", "pool", "flat", "logits",
    }  # fmt: skip
    multiplied = [n for n in found.graph.node if n.op_type == "Mul"]
    assert all(not name.endswith("dequantized") for n in multiplied for name in n.input)


@pytest.mark.parametrize("left", [("c1",), ("c2", "c3"), ("logits",), ("c1", "logits"), NAMES])
def test_tflite_computes_the_mixed_graph(
    net: onnx.ModelProto, table: RangeTable, left: tuple[str, ...]
) -> None:
    from ai_edge_litert.interpreter import Interpreter

    mixed = place_qdq(net, table, TARGETS["raspberry-pi"].scheme, left).model
    interpreter = Interpreter(model_content=lower(mixed).data)
    interpreter.allocate_tensors()
    (source,), (end,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert (source["dtype"] == np.float32) == ("c1" in left)
    assert (end["dtype"] == np.float32) == ("logits" in left)
    answers = []
    for _, image in images():
        given = image.transpose(0, 2, 3, 1)
        if source["dtype"] == np.int8:
            scale, zero = source["quantization"]
            given = np.clip(np.rint(given / np.float32(scale)) + zero, -128, 127).astype(np.int8)
        interpreter.set_tensor(source["index"], given)
        interpreter.invoke()
        answer = interpreter.get_tensor(end["index"])
        if end["dtype"] == np.int8:
            scale, zero = end["quantization"]
            answer = (answer.astype(np.float32) - zero) * np.float32(scale)
        answers.append(answer)
    expected = run(mixed)

    # A few steps of 256 over a range with two signs.
    assert np.abs(np.concatenate(answers) - expected).max() <= 3 / 128 * np.abs(expected).max()


def test_a_name_that_is_no_layer_is_refused(net: onnx.ModelProto, table: RangeTable) -> None:
    with pytest.raises(CalibrationError, match=r"found 'relu'; name one of c1, c2"):
        place_qdq(net, table, TARGETS["jetson"].scheme, ["relu"])
