"""Replaces operators by cheaper ones that every runtime has in int8 too.

A division by a constant is a multiplication, a square is a product of a value with itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import PassResult

from ..nodes import node_name
from .constants import add_constant
from .contract import GraphPass


class ReduceStrength(GraphPass):
    """Replaces Div by a float32 constant, and Pow with exponent 2, by Mul."""

    def call(self, model: ir.Model) -> PassResult:
        """Replace what has a factor."""
        modified = False
        for node in list(model.graph):
            factor = _factor(node)
            if factor is None:
                continue
            output = node.outputs[0]
            if not isinstance(factor, ir.Value):
                factor = add_constant(model.graph, f"{output.name}_factor", factor)
            made = ir.Value(name=output.name, type=output.type, shape=output.shape)
            multiply = ir.node("Mul", [node.inputs[0], factor], outputs=[made], name=node.name)
            model.graph.insert_before(node, multiply)
            output.replace_all_uses_with(made, replace_graph_outputs=True)
            model.graph.remove(node, safe=True)
            modified = True
        return PassResult(model, modified)

    def ensures(self, model: ir.Model) -> None:
        """None is left."""
        offenders = (
            f"{node.op_type} (node {node_name(node)!r})"
            for node in model.graph
            if _factor(node) is not None
        )
        self.promise("no Div or Pow that is a Mul", offenders)


def _factor(node: ir.Node) -> ir.Value | NDArray[Any] | None:
    """Return what a Mul would multiply a node's first input by; None where it is no Mul."""
    if node.op_type not in ("Div", "Pow") or len(node.inputs) != 2:
        return None
    source, operand = node.inputs
    if source is None or source.const_value is not None:
        return None
    if operand is None or operand.const_value is None:
        return None
    if operand.const_value.dtype != ir.DataType.FLOAT:
        return None
    values = operand.const_value.numpy().astype(np.float64)
    if node.op_type == "Div" and np.all(np.abs(values) > np.finfo(np.float32).tiny):
        inverse: NDArray[Any] = 1 / values
        return inverse
    if node.op_type == "Pow" and values.size == 1 and values.ravel()[0] == 2.0:
        return source
    return None
