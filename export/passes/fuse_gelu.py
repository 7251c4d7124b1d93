"""Fuses GELU, written out with Erf, into the one operator that it is from opset 20 on.

Runtimes have a kernel for GELU and none for Erf; and written out, each of its steps would be
quantized on its own.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import PassResult

from ..nodes import node_name
from .contract import GraphPass, opset

_TOLERANCE: Final = 1e-3
_OPSET: Final = 20


class FuseGelu(GraphPass):
    """Replaces x / 2 * (1 + erf(x / sqrt(2))), in any order of its factors.

    A graph of an opset before 20, which has no Gelu, is left as it is.
    """

    def call(self, model: ir.Model) -> PassResult:
        """Fuse each."""
        if opset(model) < _OPSET:
            return PassResult(model, modified=False)
        graph = model.graph
        modified = False
        for erf in [node for node in graph if node.op_type == "Erf"]:
            found = _match(erf)
            if found is None:
                continue
            source, last = found
            output = last.outputs[0]
            gelu = ir.node("Gelu", [source], name=f"{last.name}_gelu")
            graph.insert_before(last, gelu)
            made = gelu.outputs[0]
            made.name, made.type, made.shape = f"{output.name}_gelu", output.type, output.shape
            if output.is_graph_output():
                output.name, made.name = made.name, output.name
            output.replace_all_uses_with(made, replace_graph_outputs=True)
            modified = True
        if modified:
            _remove_unused(graph)
        return PassResult(model, modified)

    def ensures(self, model: ir.Model) -> None:
        """None is left that the opset has an operator for."""
        if opset(model) < _OPSET:
            return
        offenders = (
            f"node {node_name(node)!r}"
            for node in model.graph
            if node.op_type == "Erf" and _match(node) is not None
        )
        self.promise("no GELU written out with Erf", offenders)


def _match(erf: ir.Node) -> tuple[ir.Value, ir.Node] | None:
    """Return what a GELU reads and its last node, or None where an Erf is in none."""
    argument = erf.inputs[0]
    scaled = argument.producer() if argument is not None else None
    if scaled is None:
        return None
    source = _scaled_by(scaled, math.sqrt(0.5))
    plus_one = _only_user(erf)
    if source is None or plus_one is None or plus_one.op_type != "Add":
        return None
    if not _near(_number(_other(plus_one, erf.outputs[0])), 1.0):
        return None
    # What remains is to multiply by x and by one half, in either order.
    node, halved, multiplied = plus_one, False, False
    while not (halved and multiplied):
        user = _only_user(node)
        if user is None or user.op_type not in ("Mul", "Div"):
            return None
        if not halved and _scaled_by(user, 0.5) is node.outputs[0]:
            halved = True
        elif not multiplied and user.op_type == "Mul":
            other = _other(user, node.outputs[0])
            producer = other.producer() if other is not None else None
            half = _scaled_by(producer, 0.5) if producer is not None else None
            if other is source:
                multiplied = True
            elif not halved and half is source:
                halved = multiplied = True
            else:
                return None
        else:
            return None
        node = user
    return source, node


def _scaled_by(node: ir.Node, factor: float) -> ir.Value | None:
    """Return what a node multiplies by ``factor``, or divides by its inverse."""
    if node.op_type == "Mul":
        for number, value in (node.inputs, reversed(node.inputs)):
            if _near(_number(number), factor):
                return value
    if node.op_type == "Div" and _near(_number(node.inputs[1]), 1 / factor):
        return node.inputs[0]
    return None


def _number(value: ir.Value | None) -> float | None:
    if value is None or value.const_value is None or value.const_value.size != 1:
        return None
    return float(np.ravel(value.const_value.numpy())[0])


def _near(found: float | None, expected: float) -> bool:
    return found is not None and abs(found - expected) <= _TOLERANCE * abs(expected)


def _only_user(node: ir.Node) -> ir.Node | None:
    output = node.outputs[0]
    users = list(output.uses())
    return users[0].node if len(users) == 1 and not output.is_graph_output() else None


def _other(node: ir.Node, value: ir.Value) -> ir.Value | None:
    return node.inputs[1] if node.inputs[0] is value else node.inputs[0]


def _remove_unused(graph: ir.Graph) -> None:
    for node in reversed(list(graph)):
        if not any(output.uses() or output.is_graph_output() for output in node.outputs):
            graph.remove(node, safe=True)
