"""Multiplies the operands of a matrix product by numbers once instead of twice.

torch scales the queries and the keys of an attention by the square root of the one factor that it
stands for.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .constants import add_constant


def merge_factors(model: ir.Model) -> int:
    """Turn (a * s) @ (b * t) into (a * (s * t)) @ b, in place.

    Returns:
        How many products had two such operands.
    """
    count = 0
    for node in list(model.graph):
        if node.op_type != "MatMul":
            continue
        first, second = (_factor(value) for value in node.inputs)
        if first is None or second is None:
            continue
        scaled, other = (value.producer() for value in node.inputs if value is not None)
        assert scaled is not None
        assert other is not None
        name = f"{scaled.outputs[0].name}_factor"
        factor = _number(scaled, first) * _number(other, second)
        merged = add_constant(model.graph, name, np.asarray(factor))
        scaled.replace_input_with(first, merged)
        node.replace_input_with(1, other.inputs[1 - second])
        model.graph.remove(other, safe=True)
        count += 1
    return count


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
