"""Layers: what a plan of precisions decides on.

A layer is a convolution or a matrix product with all that follows it up to the next ones. That is
what changes hands on a device: a runtime computes a product in int8 together with its activation,
and the values between two layers are what is quantized or not. Every node belongs to exactly one
layer, so that a graph whose every layer is left float is the float graph.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import onnx
import onnx_ir as ir

COMPUTE: Final = frozenset({"Conv", "Gemm", "MatMul", "ConvTranspose"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer of a graph, by its convolution or matrix product.

    Attributes:
        name: Of that node.
        operator: Of that node.
        nodes: How many nodes belong to it.
        macs: Multiply-accumulates of one image.
        weights: How many numbers its constant operand has; 0 where both are computed.
    """

    name: str
    operator: str
    nodes: int
    macs: int
    weights: int


def layer_name(node: ir.Node) -> str:
    """Return the name by which a convolution or matrix product is known."""
    return node.name or str(node.outputs[0].name)


def nodes_by_layer(graph: ir.Graph) -> dict[str, tuple[ir.Node, ...]]:
    """Return the nodes of each layer, the layers in the graph's order.

    A node belongs to the last layer that it reads from, one before all layers to the first.
    """
    names: list[str] = []
    found: dict[ir.Node, int] = {}
    for node in graph:
        if node.op_type in COMPUTE:
            found[node] = len(names)
            names.append(layer_name(node))
            continue
        producers = (value.producer() for value in node.inputs if value is not None)
        found[node] = max((found[p] for p in producers if p is not None), default=0)
    members: dict[str, list[ir.Node]] = {name: [] for name in names}
    for node, index in found.items():
        if names:
            members[names[index]].append(node)
    return {name: tuple(nodes) for name, nodes in members.items()}


def layers_of(model: onnx.ModelProto) -> tuple[Layer, ...]:
    """Return the layers of a float graph, in its order; shapes must be known but for the batch."""
    graph = ir.from_proto(model).graph
    found = []
    for name, nodes in nodes_by_layer(graph).items():
        node = next(node for node in nodes if node.op_type in COMPUTE and layer_name(node) == name)
        second = node.inputs[1]
        constant = second is not None and second.const_value is not None
        found.append(
            Layer(
                name=name,
                operator=node.op_type,
                nodes=len(nodes),
                macs=_macs(node),
                weights=_count(second) if constant else 0,
            )
        )
    return tuple(found)


def _macs(node: ir.Node) -> int:
    """Return the products of one image: each output is a sum over what one output reads."""
    first, second = _sizes(node.inputs[0]), _sizes(node.inputs[1])
    if node.op_type == "Conv":  # weights (O, I / groups, kernel)
        return _count(node.outputs[0]) * math.prod(second[1:])
    if node.op_type == "ConvTranspose":  # weights (I, O / groups, kernel), one for each input
        return _count(node.inputs[0]) * math.prod(second[1:])
    summed = first[-1] if first else 1
    if node.op_type == "Gemm":
        across: int = node.attributes.get_int("transA", 0)
        summed = first[0] if across else summed
    return _count(node.outputs[0]) * summed


def _count(value: ir.Value | None) -> int:
    return math.prod(_sizes(value))


def _sizes(value: ir.Value | None) -> list[int]:
    """Return a shape in which what is free, the batch, counts as one image."""
    shape = value.shape if value is not None else None
    return [] if shape is None else [size if isinstance(size, int) else 1 for size in shape.dims]
