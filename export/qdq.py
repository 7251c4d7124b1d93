"""Q/DQ as another tool wrote it: its domain, and how many bits its codes have."""

from __future__ import annotations

from typing import Final

import onnx
import onnx_ir as ir

_QDQ: Final = frozenset({"QuantizeLinear", "DequantizeLinear"})
_CONTRIB: Final = "com.microsoft"
_WIDE: Final = frozenset({ir.DataType.INT16, ir.DataType.UINT16})


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
    """Return 16 where a graph quantizes an activation to 16 bits, else 8."""
    graph = ir.from_proto(model).graph
    return 16 if any(_is_wide(node) for node in graph) else 8


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
