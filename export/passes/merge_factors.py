"""Multiplies the operands of a matrix product by numbers once instead of twice.

torch scales the queries and the keys of an attention by the square root of the one factor that it
stands for.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import PassResult

from ..nodes import node_name
from .constants import add_constant
from .contract import GraphPass


class MergeFactors(GraphPass):
    """Turns (a * s) @ (b * t) into (a * (s * t)) @ b."""

    def call(self, model: ir.Model) -> PassResult:
        """Merge the factors of each product; one operand may have several."""
        modified = False
        for node in list(model.graph):
            while (found := _factors(node)) is not None:
                _merge(model.graph, node, *found)
                modified = True
        return PassResult(model, modified)

    def ensures(self, model: ir.Model) -> None:
        """No product is left whose operands both have a factor."""
        offenders = (
            f"two (node {node_name(node)!r})" for node in model.graph if _factors(node) is not None
        )
        self.promise("one factor per MatMul", offenders)


def _merge(graph: ir.Graph, node: ir.Node, first: int, second: int) -> None:
    scaled, other = (value.producer() for value in node.inputs if value is not None)
    assert scaled is not None
    assert other is not None
    name = f"{scaled.outputs[0].name}_factor"
    factor = _number(scaled, first) * _number(other, second)
    scaled.replace_input_with(first, add_constant(graph, name, np.asarray(factor)))
    node.replace_input_with(1, other.inputs[1 - second])
    graph.remove(other, safe=True)


def _factors(node: ir.Node) -> tuple[int, int] | None:
    """Return which input is a number of the Mul that makes each operand of a MatMul, if both."""
    if node.op_type != "MatMul":
        return None
    first, second = (_factor(value) for value in node.inputs)
    return None if first is None or second is None else (first, second)


def _factor(value: ir.Value | None) -> int | None:
    """Return which input of the Mul that makes a value for one reader is a number."""
    node = value.producer() if value is not None else None
    if value is None or node is None or node.op_type != "Mul":
        return None
    if len(value.uses()) != 1 or value.is_graph_output():
        return None
    for index, operand in enumerate(node.inputs):
        constant = operand.const_value if operand is not None else None
        # Of more than one axis it could add axes to the other operand.
        if constant is not None and constant.size == 1 and len(constant.shape) <= 1:
            return index
    return None


def _number(node: ir.Node, index: int) -> float:
    operand = node.inputs[index]
    assert operand is not None
    assert operand.const_value is not None
    return float(np.ravel(operand.const_value.numpy())[0])
