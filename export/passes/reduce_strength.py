"""Replaces operators by cheaper ones that every runtime has in int8 too.

A division by a constant is a multiplication, a square is a product of a value with itself.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .constants import add_constant


def reduce_strength(model: ir.Model) -> int:
    """Replace Div by a float32 constant, and Pow with exponent 2, by Mul, in place.

    Returns:
        How many were replaced.
    """
    count = 0
    for node in list(model.graph):
        if node.op_type not in ("Div", "Pow") or len(node.inputs) != 2:
            continue
        source, constant = node.inputs
        if source is None or source.const_value is not None:
            continue
        if constant is None or constant.const_value is None:
            continue
        if constant.const_value.dtype != ir.DataType.FLOAT:
            continue
        values = constant.const_value.numpy().astype(np.float64)
        if node.op_type == "Div" and np.all(np.abs(values) > np.finfo(np.float32).tiny):
            other = add_constant(model.graph, f"{node.outputs[0].name}_factor", 1 / values)
        elif node.op_type == "Pow" and values.size == 1 and values.ravel()[0] == 2.0:
            other = source
        else:
            continue
        output = node.outputs[0]
        made = ir.Value(name=output.name, type=output.type, shape=output.shape)
        multiply = ir.node("Mul", [source, other], outputs=[made], name=node.name)
        model.graph.insert_before(node, multiply)
        output.replace_all_uses_with(made, replace_graph_outputs=True)
        model.graph.remove(node, safe=True)
        count += 1
    return count
