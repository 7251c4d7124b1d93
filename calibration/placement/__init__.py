"""Q/DQ placement: a float graph and a table of ranges become a target's quantized graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import onnx
import onnx_ir as ir

from ...core.errors import CalibrationError
from ...core.ranges import RangeTable
from ...core.values import QuantScheme
from .full import place_full
from .fused import place_fused
from .qdq import Qdq

_PLACEMENTS: Final[dict[str, Callable[[ir.Model, Qdq], None]]] = {
    "fused": place_fused,
    "full": place_full,
}

_COMPUTE: Final = frozenset({"Conv", "Gemm", "MatMul", "ConvTranspose"})


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizedGraph:
    """A graph with Q/DQ.

    Attributes:
        model: The graph; ONNX Runtime runs it as its target's simulation.
        quantized: How many convolutions and matrix products read int8 on both sides.
        left_float: Names of those that do not.
    """

    model: onnx.ModelProto
    quantized: int
    left_float: tuple[str, ...]


def place_qdq(model: onnx.ModelProto, table: RangeTable, scheme: QuantScheme) -> QuantizedGraph:
    """Return the graph with the Q/DQ pairs of a scheme; ``model`` is left as it is.

    Raises:
        CalibrationError: The table lacks a tensor that the scheme quantizes.
    """
    graph_model = ir.from_proto(model)
    qdq = Qdq(graph_model.graph, table.ranges, scheme)
    _PLACEMENTS[scheme.placement](graph_model, qdq)
    graph_model.graph.sort()
    for name, value in list(graph_model.graph.initializers.items()):
        if not value.uses():
            del graph_model.graph.initializers[name]
    proto = ir.to_proto(graph_model)
    try:
        onnx.checker.check_model(proto, full_check=True)
    except onnx.checker.ValidationError as error:
        raise CalibrationError(f"the quantized graph is not valid: {error}") from error
    compute = [node for node in graph_model.graph if node.op_type in _COMPUTE]
    left = tuple(node.name or "" for node in compute if not _reads_int8(node))
    return QuantizedGraph(model=proto, quantized=len(compute) - len(left), left_float=left)


def _reads_int8(node: ir.Node) -> bool:
    producers = [value.producer() if value is not None else None for value in node.inputs[:2]]
    return all(p is not None and p.op_type == "DequantizeLinear" for p in producers)


__all__ = ["QuantizedGraph", "place_qdq"]
