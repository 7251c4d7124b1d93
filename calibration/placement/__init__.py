"""Q/DQ placement: a float graph and a table of ranges become a target's quantized graph."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
import onnx_ir as ir

from ...core.errors import CalibrationError, GraphError
from ...core.ranges import RangeTable
from ...core.values import INT16_OPSET, QuantScheme
from .full import place_full
from .fused import place_fused
from .integer import IntegerGraph, integer_products
from .layers import COMPUTE, Layer, layer_name, layers_of, nodes_by_layer
from .qdq import Qdq, constant, drop_unused, known
from .unsigned import make_unsigned
from .weights_only import place_weights

PLACEMENTS: Final[dict[str, Callable[[ir.Model, Qdq], None]]] = {
    "fused": place_fused,
    "full": place_full,
}
"""By what a scheme calls it: what inserts its pairs in place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizedGraph:
    """A graph with Q/DQ.

    Attributes:
        model: The graph; ONNX Runtime runs it as its target's simulation.
        quantized: How many convolutions and matrix products read codes on both sides.
        left_float: Names of those that do not.
    """

    model: onnx.ModelProto
    quantized: int
    left_float: tuple[str, ...]


def place_qdq(
    model: onnx.ModelProto,
    table: RangeTable,
    scheme: QuantScheme,
    float_nodes: Collection[str] = (),
) -> QuantizedGraph:
    """Return the graph with the Q/DQ pairs of a scheme; ``model`` is left as it is.

    Pairs and quantized weights that it has stay to the letter, the scheme's others are added.

    Args:
        model: A graph.
        table: The ranges of its values.
        scheme: How they become scales.
        float_nodes: Convolutions and matrix products that stay float with all of their layer
            (``layers_of``): their weights, and what goes from one of them to another. What goes
            between them and a quantized layer is quantized on the latter's side.

    Raises:
        CalibrationError: The table lacks a tensor that the scheme quantizes, or the graph has no
            such node.
    """
    graph_model = ir.from_proto(model)
    _place(graph_model, table, scheme, float_nodes)
    return _checked(graph_model)


def adopt_qdq(
    model: onnx.ModelProto, scheme: QuantScheme, table: RangeTable | None = None
) -> QuantizedGraph:
    """Take a graph with Q/DQ of its own for a scheme, its scales as they are.

    For TensorRT, whose placement is the fused one, biases in int32 become the float32 that they
    stand for: its parser refuses them.

    Args:
        model: As ``CanonicalQdq`` leaves it.
        scheme: The target's.
        table: Ranges of the quantized graph, to add what the scheme quantizes and the graph does
            not; without it that stays float.

    Raises:
        GraphError: It is for TensorRT and a zero point is not 0.
    """
    graph_model = ir.from_proto(model)
    if scheme.placement == "fused":
        for node in list(graph_model.graph):
            if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
                _make_symmetric(graph_model.graph, node)
        drop_unused(graph_model.graph)
    if table is not None:
        _place(graph_model, table, scheme)
    elif scheme.codes == "uint8":
        _finish(graph_model, Qdq(graph_model.graph, {}, scheme))
    return _checked(graph_model)


def _place(
    graph_model: ir.Model,
    table: RangeTable,
    scheme: QuantScheme,
    float_nodes: Collection[str] = (),
) -> None:
    left = _left_float(graph_model.graph, float_nodes)
    qdq = Qdq(graph_model.graph, table.ranges, scheme, left)
    PLACEMENTS[scheme.placement](graph_model, qdq)
    _finish(graph_model, qdq)


def _left_float(graph: ir.Graph, names: Collection[str]) -> frozenset[ir.Node]:
    if not names:
        return frozenset()
    members = nodes_by_layer(graph)
    unknown = sorted(set(names) - members.keys())
    if unknown:
        raise CalibrationError(
            f"expected convolutions or matrix products of the graph to leave float, found "
            f"{unknown[0]!r}; name one of {', '.join(list(members)[:5])}, ..."
        )
    return frozenset(node for name in names for node in members[name])


def _finish(graph_model: ir.Model, qdq: Qdq) -> None:
    scheme = qdq.scheme
    if scheme.codes == "uint8":
        make_unsigned(qdq)
    graph_model.graph.sort()
    drop_unused(graph_model.graph)
    if scheme.activation_bits == 16:
        graph_model.opset_imports[""] = max(INT16_OPSET, graph_model.opset_imports[""])


def _checked(graph_model: ir.Model) -> QuantizedGraph:
    proto = ir.to_proto(graph_model)
    try:
        onnx.checker.check_model(proto, full_check=True)
    except onnx.checker.ValidationError as error:
        raise CalibrationError(f"the quantized graph is not valid: {error}") from error
    compute = [node for node in graph_model.graph if node.op_type in COMPUTE]
    left = tuple(layer_name(node) for node in compute if not _reads_int8(node))
    return QuantizedGraph(model=proto, quantized=len(compute) - len(left), left_float=left)


def _make_symmetric(graph: ir.Graph, node: ir.Node) -> None:
    zero_point = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if zero_point is not None and zero_point.any():
        raise GraphError(
            f"{node.op_type} (node {node.name!r}): its zero point is not 0, TensorRT takes only "
            "symmetric quantization; quantize activations symmetrically, or export the float model "
            "with --calib"
        )
    codes, end = constant(node.inputs[0]), node.outputs[0]
    bias = known(end)
    if codes is None or bias is None or codes.dtype != np.int32:
        return
    name = f"{end.name}_float"
    value = ir.Value(
        name=name,
        const_value=ir.tensor(bias, name=name),
        type=ir.TensorType(ir.DataType.FLOAT),
        shape=ir.Shape(bias.shape),
    )
    graph.register_initializer(value)
    ir.convenience.replace_all_uses_with(end, value)
    graph.remove(node, safe=True)


def _reads_int8(node: ir.Node) -> bool:
    producers = [value.producer() if value is not None else None for value in node.inputs[:2]]
    return all(p is not None and p.op_type == "DequantizeLinear" for p in producers)


__all__ = [
    "IntegerGraph", "Layer", "QuantizedGraph", "adopt_qdq", "integer_products", "layers_of",
    "place_qdq", "place_weights",
]  # fmt: skip
