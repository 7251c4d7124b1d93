"""Quantization that needs no images: of the weights, and of activations as the network runs."""

from __future__ import annotations

from typing import Final, Literal

import onnx
import onnx_ir as ir

from ...core.values import QuantScheme
from .qdq import Qdq, constant, drop_unused
from .weights import weight_axis

SMALLEST_WEIGHTS: Final = 1024
"""Weights of fewer numbers stay float: they are no part of a file's size, and cost accuracy.

Source: the default of TensorFlow's and LiteRT's quantizers.
"""


DYNAMIC: Final = QuantScheme(activations="asymmetric", placement="full")
"""DynamicQuantizeLinear's; weights are the same in every scheme."""

Dynamic = Literal["none", "layers", "products"]
"""What is also quantized as the network runs: nothing; convolutions and matrix products; these."""


def place_weights(model: onnx.ModelProto, *, dynamic: Dynamic = "none") -> onnx.ModelProto:
    """Return a float graph with int8 weights behind DequantizeLinear, per output channel.

    Args:
        model: The float graph; not changed.
        dynamic: Of which nodes the inputs are also quantized as the network runs, with the range
            that they have then. Never of depthwise convolutions: LiteRT's kernels with float
            activations are two and a half times as fast (EfficientNet-Lite0 as a whole), and exact.
    """
    graph_model = ir.from_proto(model)
    graph = graph_model.graph
    qdq = Qdq(graph, {}, DYNAMIC)
    for node in list(graph):
        axis = weight_axis(node)
        weights = None if axis is None else constant(node.inputs[1])
        if axis is None or weights is None or weights.size < SMALLEST_WEIGHTS:
            continue
        qdq.weights(node, axis=axis, input_range=None)
        if _as_it_runs(node, weights.shape, dynamic):
            qdq.as_it_runs(node)
    graph.sort()
    drop_unused(graph)
    proto = ir.to_proto(graph_model)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def _as_it_runs(node: ir.Node, shape: tuple[int, ...], dynamic: Dynamic) -> bool:
    if dynamic == "products":
        factors = (node.attributes.get_float(name, 1.0) for name in ("alpha", "beta"))
        plain = not node.attributes.get_int("transA", 0) and set(factors) == {1.0}
        return node.op_type != "Conv" and plain
    depthwise = node.attributes.get_int("group", 1) > 1 and shape[1] == 1
    return dynamic == "layers" and not depthwise
