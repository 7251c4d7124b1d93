"""Matrix products that are quantized as they run, in ONNX's integer operators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from .qdq import Qdq, constant, drop_unused, is_dequantized
from .weights import weight_axis
from .weights_only import DYNAMIC


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegerGraph:
    """A graph with MatMulInteger.

    Attributes:
        model: The graph.
        quantized: How many products it has.
        left_float: Names of the layers with weights that compute in float.
    """

    model: onnx.ModelProto
    quantized: int
    left_float: tuple[str, ...]


def integer_products(model: onnx.ModelProto) -> IntegerGraph:
    """Return a graph of ``place_weights(dynamic="products")`` with its products in integers.

    A sum of products of codes is exact, so that it answers as the graph with Q/DQ does, but for the
    rounding of float32 behind it. Bytes are unsigned times signed: what runs it must not add two
    products in 16 bits.

    Args:
        model: Not changed.
    """
    graph_model = ir.from_proto(model)
    graph = graph_model.graph
    qdq = Qdq(graph, {}, DYNAMIC)
    quantized, left = 0, []
    for node in list(graph):
        if node.op_type in {"MatMul", "Gemm"} and _is_dynamic(node):
            _in_integers(node, qdq)
            quantized += 1
        elif weight_axis(node) is not None:
            left.append(str(node.name))
    RemoveUnusedNodesPass()(graph_model)
    graph.sort()
    drop_unused(graph)
    proto = ir.to_proto(graph_model)
    onnx.checker.check_model(proto, full_check=True)
    return IntegerGraph(model=proto, quantized=quantized, left_float=tuple(left))


_ENDINGS: Final = tuple(
    f"_{part}{kind}"
    for part in ("codes", "scale", "sums", "numbers", "scales", "product", "biased", "replaced")
    for kind in ("", "_node")
)


def _is_dynamic(node: ir.Node) -> bool:
    ahead = node.inputs[0].producer() if is_dequantized(node.inputs[0]) and node.inputs[0] else None
    codes = ahead.inputs[0] if ahead is not None else None
    producer = codes.producer() if codes is not None else None
    return producer is not None and producer.op_type == "DynamicQuantizeLinear"


def _in_integers(node: ir.Node, qdq: Qdq) -> None:
    """Replace a product of dequantized codes."""
    inputs, weights = (value.producer() for value in node.inputs[:2] if value is not None)
    assert inputs is not None
    assert weights is not None
    codes, scales = constant(weights.inputs[0]), constant(weights.inputs[1])
    assert codes is not None
    assert scales is not None
    if node.attributes.get_int("transB", 0):
        codes = codes.T
    value = node.outputs[0]
    name = qdq.unique(str(value.name), *_ENDINGS)
    quantized, scale, zero_point = inputs.inputs[:3]
    bias = node.inputs[2] if len(node.inputs) > 2 else None

    def made(
        kind: str, operands: list[ir.Value | None], ending: str, dtype: ir.DataType, **more: int
    ) -> ir.Value:
        end = ir.Value(name=f"{name}_{ending}", type=ir.TensorType(dtype), shape=value.shape)
        qdq.graph.insert_before(
            node, ir.node(kind, operands, more, outputs=[end], name=f"{name}_{ending}_node")
        )
        return end

    float32 = ir.DataType.FLOAT
    columns = qdq.register(f"{name}_codes", np.ascontiguousarray(codes))
    factors = qdq.register(f"{name}_scale", np.asarray(scales, np.float32))
    sums = made("MatMulInteger", [quantized, columns, zero_point], "sums", ir.DataType.INT32)
    numbers = made("Cast", [sums], "numbers", float32, to=int(float32))
    both = ir.Value(
        name=f"{name}_scales", type=ir.TensorType(float32), shape=ir.Shape(scales.shape)
    )
    qdq.graph.insert_before(
        node, ir.node("Mul", [scale, factors], outputs=[both], name=f"{name}_scales_node")
    )
    end = made("Mul", [numbers, both], "product", float32)
    if bias is not None:
        end = made("Add", [end, bias], "biased", float32)
    value_name = value.name
    ir.convenience.replace_all_uses_with(value, end, replace_graph_outputs=True)
    qdq.graph.remove(node, safe=True)
    value.name, end.name = f"{name}_replaced", value_name
