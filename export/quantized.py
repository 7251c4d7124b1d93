"""Recognizes graphs that come quantized, and the forms of quantization that are not taken."""

from __future__ import annotations

from typing import Final

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from ..core.errors import UnsupportedOperatorError

_STATIC: Final = "quantize statically with images, in QDQ format"

# Quantized operators by the start of their name, and what makes Q/DQ instead.
_OTHER_FORMS: Final = (
    ("QLinear", "it computes on codes (QOperator format)", "use quant_format=QuantFormat.QDQ"),
    ("QGemm", "it computes on codes (QOperator format)", "use quant_format=QuantFormat.QDQ"),
    ("ConvInteger", "its activations are quantized at run time", _STATIC),
    ("MatMulInteger", "its activations are quantized at run time", _STATIC),
    ("DynamicQuantize", "it computes scales at run time", _STATIC),
    ("MatMulNBits", "its weights are quantized per block", "quantize weights to int8 per channel"),
)
_CONTRIB: Final = frozenset({"QuantizeLinear", "DequantizeLinear"})


def is_quantized(model: onnx.ModelProto) -> bool:
    """Return whether a graph has Q/DQ."""
    return any(node.op_type in _CONTRIB for node in model.graph.node)


def refuse_other_forms(model: onnx.ModelProto) -> None:
    """Raise for quantization that is not Q/DQ of ONNX's own operators.

    Raises:
        UnsupportedOperatorError: With the node, and the tool's option that mends it.
    """
    for node in model.graph.node:
        for start, found, fix in _OTHER_FORMS:
            if node.op_type.startswith(start):
                raise _refused(node, found, fix)
        if node.op_type in _CONTRIB and node.domain not in ("", "ai.onnx"):
            raise _refused(
                node,
                f"it is of the domain {node.domain!r}",
                "quantize to int8 or uint8 without UseQDQContribOps",
            )


def without_activation_qdq(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph that computes in float with the same quantized weights.

    What the quantized graph's answers differ by from its answers is the noise of quantization.
    """
    graph_model = ir.from_proto(model)
    for node in list(graph_model.graph):
        source = node.inputs[0]
        quantize = source.producer() if source is not None else None
        if node.op_type != "DequantizeLinear" or quantize is None:
            continue
        before = quantize.inputs[0]
        if quantize.op_type != "QuantizeLinear" or before is None:
            continue
        end = node.outputs[0]
        name, is_output = end.name, end.is_graph_output()
        ir.convenience.replace_all_uses_with(end, before, replace_graph_outputs=True)
        graph_model.graph.remove(node, safe=True)
        if is_output:
            before.name = name
    common.RemoveUnusedNodesPass()(graph_model)
    return ir.to_proto(graph_model)


def _refused(node: onnx.NodeProto, found: str, fix: str) -> UnsupportedOperatorError:
    name = node.name or node.output[0]
    return UnsupportedOperatorError(operator=node.op_type, node=name, found=found, fix=fix)
