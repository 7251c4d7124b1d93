"""Quantization that needs no images: of the weights, and of activations as the network runs."""

from __future__ import annotations

from typing import Final

import onnx
import onnx_ir as ir

from ...core.values import QuantScheme
from .qdq import Qdq, constant, drop_unused
from .weights import weight_axis

SMALLEST_WEIGHTS: Final = 1024
"""Weights of fewer numbers stay float: they are no part of a file's size, and cost accuracy.

Source: the default of TensorFlow's and LiteRT's quantizers.
"""


# DynamicQuantizeLinear's; weights are the same in every scheme.
_SCHEME: Final = QuantScheme(activations="asymmetric", placement="full")


def place_weights(model: onnx.ModelProto, *, dynamic: bool = False) -> onnx.ModelProto:
    """Return a float graph with int8 weights behind DequantizeLinear, per output channel.

    Args:
        model: The float graph; not changed.
        dynamic: Also quantize the inputs of those nodes as the network runs, with the range that
            they have then. Not of depthwise convolutions: their kernels with float activations
            are two and a half times as fast (EfficientNet-Lite0 as a whole), and exact.
    """
    graph_model = ir.from_proto(model)
    graph = graph_model.graph
    qdq = Qdq(graph, {}, _SCHEME)
    for node in list(graph):
        axis = weight_axis(node)
        weights = None if axis is None else constant(node.inputs[1])
        if axis is None or weights is None or weights.size < SMALLEST_WEIGHTS:
            continue
        qdq.weights(node, axis=axis, input_range=None)
        depthwise = node.attributes.get_int("group", 1) > 1 and weights.shape[1] == 1
        if dynamic and not depthwise:
            qdq.as_it_runs(node)
    graph.sort()
    drop_unused(graph)
    proto = ir.to_proto(graph_model)
    onnx.checker.check_model(proto, full_check=True)
    return proto
