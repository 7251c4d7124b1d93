"""Takes a final Softmax off: artefacts end at logits, softmax is the runtime's."""

from __future__ import annotations

from typing import Final, Literal

import onnx_ir as ir
from onnx_ir.passes import PassResult

from ...core.errors import GraphError
from ..nodes import node_name
from .contract import GraphPass

# What may stand behind the softmax and changes no value but by its own rounding.
_PASSING: Final = frozenset(
    {
        "Cast", "DequantizeLinear", "Dropout", "Flatten", "Identity", "QuantizeLinear", "Reshape",
        "Squeeze", "Unsqueeze",
    }
)  # fmt: skip
_ROUNDING: Final = frozenset({"DequantizeLinear", "QuantizeLinear"})

Operator = Literal["", "Softmax", "LogSoftmax"]


class StripSoftmax(GraphPass):
    """Removes a Softmax or LogSoftmax that the graph's output comes from.

    Reshapes behind it stay; Q/DQ behind it, made for probabilities, goes too.

    Attributes:
        operator: Which it was in the last run; "" where there was none.

    Raises:
        GraphError: The output comes from a Sigmoid: such a model answers several questions with
            yes or no, and a softmax over them means nothing.
    """

    operator: Operator = ""
    _doomed: tuple[ir.Node, ...] = ()

    def requires(self, model: ir.Model) -> None:
        """Nothing; what has to go is noted, to be asked for afterwards."""
        self._doomed = _doomed(model.graph)

    def call(self, model: ir.Model) -> PassResult:
        """Remove it."""
        graph = model.graph
        end = _end(graph)[1]
        if end is not None and end.op_type == "Sigmoid":
            raise GraphError(
                f"the model ends in Sigmoid (node {end.name!r}): a multi-label model, expected one "
                "that gives logits of exclusive classes"
            )
        doomed = _doomed(graph)
        self.operator = ""
        if not doomed:
            return PassResult(model, modified=False)
        self.operator = "Softmax" if doomed[-1].op_type == "Softmax" else "LogSoftmax"
        old = graph.outputs[0]
        name, kind, shape = old.name, old.type, old.shape
        for dead in doomed:
            end_value, source = dead.outputs[0], dead.inputs[0]
            assert source is not None
            ir.convenience.replace_all_uses_with(end_value, source, replace_graph_outputs=True)
            graph.remove(dead, safe=True)
        new = graph.outputs[0]
        if new is not old:
            old.name = f"{name}_probabilities"
            new.name = name
        # A file need not say what is inside a graph; of its output it must.
        if new.type is None:
            new.type = kind
        if new.shape is None:
            new.shape = shape
        return PassResult(model, modified=True)

    def ensures(self, model: ir.Model) -> None:
        """What had to go is gone. A softmax before it, of which it was one, is the model's own."""
        del model
        left = (f"node {node_name(node)!r}" for node in self._doomed if node.graph is not None)
        self.promise("no softmax at the end", left)


def _end(graph: ir.Graph) -> tuple[list[ir.Node], ir.Node | None]:
    """Return what makes the output but for nodes that pass values on, and these before it."""
    passing: list[ir.Node] = []
    node = graph.outputs[0].producer()
    while node is not None and node.op_type in _PASSING:
        passing.append(node)
        source = node.inputs[0]
        node = source.producer() if source is not None else None
    return passing, node


def _doomed(graph: ir.Graph) -> tuple[ir.Node, ...]:
    """Return a final softmax, last, and the Q/DQ behind it; nothing where there is none."""
    passing, node = _end(graph)
    if node is None or node.op_type not in ("Softmax", "LogSoftmax"):
        return ()
    return (*(other for other in passing if other.op_type in _ROUNDING), node)
