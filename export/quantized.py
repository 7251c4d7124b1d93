"""Q/DQ as another tool wrote it: recognized, refused where its form is not taken, measured."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import common

from ..core.errors import UnsupportedOperatorError
from .passes.constants import add_constant

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
_QDQ: Final = frozenset({"QuantizeLinear", "DequantizeLinear"})
_CONTRIB: Final = "com.microsoft"
_WIDE: Final = frozenset({ir.DataType.INT16, ir.DataType.UINT16})


def is_quantized(model: onnx.ModelProto) -> bool:
    """Return whether a graph has Q/DQ."""
    return any(node.op_type in _QDQ for node in model.graph.node)


def refuse_other_forms(model: onnx.ModelProto) -> None:
    """Raise for quantization that is not Q/DQ of ONNX's own operators.

    Raises:
        UnsupportedOperatorError: With the node, and the tool's option that mends it.
    """
    for node in model.graph.node:
        for start, found, fix in _OTHER_FORMS:
            if node.op_type.startswith(start):
                raise _refused(node, found, fix)


def standard_qdq(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with ONNX Runtime's own Q/DQ as ONNX's, which compute the same.

    ONNX Runtime has them in its domain because ONNX's took 16 bits only later.
    """
    if not any(_is_contrib(node) for node in model.graph.node):
        return model
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for node in changed.graph.node:
        if _is_contrib(node):
            node.domain = ""
    return changed


def activation_bits(model: onnx.ModelProto) -> int:
    """Return 16 where a graph quantizes an activation to 16 bits, 8, or 0 where none."""
    graph = ir.from_proto(model).graph
    if any(_is_wide(node) for node in graph):
        return 16
    return 8 if any(node.op_type == "QuantizeLinear" for node in graph) else 0


def without_rounding(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with a Clip to the same range in place of each activation's Q/DQ.

    Its answers differ from the quantized graph's by the noise of rounding. The range stays, because
    it may stand for a ReLU.

    Args:
        model: As ``CanonicalQdq`` leaves it.
    """
    graph_model = ir.from_proto(model)
    graph = graph_model.graph
    for node in [node for node in graph if node.op_type == "DequantizeLinear"]:
        source = node.inputs[0]
        quantize = source.producer() if source is not None else None
        scale, zero_point = (_array(value) for value in node.inputs[1:3])
        if quantize is None or scale is None or zero_point is None:
            continue
        if quantize.op_type != "QuantizeLinear":
            continue
        limits = np.iinfo(zero_point.dtype)
        bounds = [
            add_constant(graph, f"{node.name}_{end}", (end - zero_point.astype(float)) * scale)
            for end in (limits.min, limits.max)
        ]
        end = node.outputs[0]
        made = ir.Value(name=f"{end.name}_unrounded", type=end.type, shape=end.shape)
        clip = ir.node("Clip", [quantize.inputs[0], *bounds], outputs=[made])
        graph.insert_before(node, clip)
        name = end.name
        ir.convenience.replace_all_uses_with(end, made, replace_graph_outputs=True)
        graph.remove(node, safe=True)
        made.name = name
    common.RemoveUnusedNodesPass()(graph_model)
    return ir.to_proto(graph_model)


def _is_contrib(node: onnx.NodeProto) -> bool:
    return node.domain == _CONTRIB and node.op_type in _QDQ


def _is_wide(node: ir.Node) -> bool:
    if node.op_type != "QuantizeLinear":
        return False
    zero_point = node.inputs[2] if len(node.inputs) > 2 else None
    if zero_point is None:
        return ir.DataType(node.attributes.get_int("output_dtype", 0)) in _WIDE
    found = ir.convenience.get_const_tensor(zero_point)
    return found is not None and found.dtype in _WIDE


def _array(value: ir.Value | None) -> NDArray[Any] | None:
    return None if value is None or value.const_value is None else value.const_value.numpy()


def _refused(node: onnx.NodeProto, found: str, fix: str) -> UnsupportedOperatorError:
    name = node.name or node.output[0]
    return UnsupportedOperatorError(operator=node.op_type, node=name, found=found, fix=fix)
