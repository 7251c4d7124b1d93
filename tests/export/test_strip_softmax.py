from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from edgecls.core.errors import GraphError
from edgecls.export.passes.strip_softmax import StripSoftmax

HEADER = '<ir_version: 10, opset_import: ["" : 20]>\n'
CONV = "c = Conv <kernel_shape=[4,4]> (input, w)\n"
HEADS = {
    "softmax last": (CONV + "f = Flatten (c)\n y = Softmax (f)", "Softmax"),
    "log softmax": (CONV + "f = Flatten (c)\n y = LogSoftmax (f)", "LogSoftmax"),
    "flattened after": (CONV + "s = Softmax <axis=1> (c)\n y = Flatten (s)", "Softmax"),
    "quantized": (
        CONV + "f = Flatten (c)\n s = Softmax (f)\n q = QuantizeLinear (s, k, z)\n"
        "y = DequantizeLinear (q, k, z)", "Softmax",
    ),
    "none": (CONV + "y = Flatten (c)", ""),
    "inside only": (CONV + "s = Softmax <axis=1> (c)\n r = Relu (s)\n y = Flatten (r)", ""),
}  # fmt: skip


def build(body: str) -> onnx.ModelProto:
    """Without shapes inside the graph, as a file from elsewhere may be."""
    text = f"{HEADER}g (float[batch,3,4,4] input) => (float[batch,5] y) {{ {body} }}"
    model = onnx.parser.parse_model(text)
    used = {name for node in model.graph.node for name in node.input}
    weights = np.random.default_rng(0).normal(size=(5, 3, 4, 4)).astype(np.float32)
    constants = {"w": weights, "k": np.array(1 / 256, np.float32), "z": np.array(-128, np.int8)}
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(array, name)
        for name, array in constants.items()
        if name in used
    )
    return model


def run(model: onnx.ModelProto) -> NDArray[np.float64]:
    onnx.checker.check_model(model, full_check=True)
    image = np.random.default_rng(1).normal(size=(2, 3, 4, 4)).astype(np.float32)
    found = ort.InferenceSession(model.SerializeToString()).run(["y"], {"input": image})[0]
    return np.asarray(found, np.float64)


@pytest.mark.parametrize("name", HEADS)
def test_a_final_softmax_goes_and_nothing_else(name: str) -> None:
    body, operator = HEADS[name]
    model = build(body)
    graph = ir.from_proto(model)

    strip = StripSoftmax()

    assert strip(graph).modified == bool(operator)
    assert strip.operator == operator

    stripped = ir.to_proto(graph)
    expected, logits = run(model), run(stripped)
    if not operator:
        assert np.array_equal(expected, logits)
        return
    assert not {"Softmax", "LogSoftmax", "QuantizeLinear"} & {
        n.op_type for n in stripped.graph.node
    }
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    again = powers / powers.sum(axis=1, keepdims=True)
    if operator == "LogSoftmax":
        again = np.log(again)
    assert np.allclose(again, expected, atol=1 / 256)


@pytest.mark.parametrize(
    "tail", ["y = Sigmoid (f)", "s = Sigmoid (f)\n q = QuantizeLinear (s, k, z)\n"
             "y = DequantizeLinear (q, k, z)"],
)  # fmt: skip
def test_a_sigmoid_is_refused(tail: str) -> None:
    with pytest.raises(GraphError, match="multi-label"):
        StripSoftmax()(ir.from_proto(build(CONV + "f = Flatten (c)\n" + tail)))
