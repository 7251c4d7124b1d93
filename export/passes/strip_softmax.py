"""Takes a final Softmax off: artefacts end at logits, softmax is the runtime's."""

from __future__ import annotations

from typing import Final, Literal

import onnx_ir as ir

from ...core.errors import GraphError

# What may stand behind the softmax and changes no value but by its own rounding.
_PASSING: Final = frozenset(
    {
        "Cast", "DequantizeLinear", "Dropout", "Flatten", "Identity", "QuantizeLinear", "Reshape",
        "Squeeze", "Unsqueeze",
    }
)  # fmt: skip
_ROUNDING: Final = frozenset({"DequantizeLinear", "QuantizeLinear"})


def strip_softmax(model: ir.Model) -> Literal["", "Softmax", "LogSoftmax"]:
    """Remove a Softmax or LogSoftmax that the graph's output comes from, in place.

    Reshapes behind it stay; Q/DQ behind it, made for probabilities, goes too.

    Returns:
        Which it was; "" where there is none.

    Raises:
        GraphError: The output comes from a Sigmoid: such a model answers several questions with
            yes or no, and a softmax over them means nothing.
    """
    graph = model.graph
    chain: list[ir.Node] = []
    node = graph.outputs[0].producer()
    while node is not None and node.op_type in _PASSING:
        chain.append(node)
        source = node.inputs[0]
        node = source.producer() if source is not None else None
    if node is None:
        return ""
    if node.op_type == "Sigmoid":
        raise GraphError(
            f"the model ends in Sigmoid (node {node.name!r}): a multi-label model, expected one "
            "that gives logits of exclusive classes"
        )
    if node.op_type not in {"Softmax", "LogSoftmax"}:
        return ""
    operator: Literal["Softmax", "LogSoftmax"] = (
        "Softmax" if node.op_type == "Softmax" else "LogSoftmax"
    )
    old = graph.outputs[0]
    name, kind, shape = old.name, old.type, old.shape
    for dead in [*(other for other in chain if other.op_type in _ROUNDING), node]:
        end, source = dead.outputs[0], dead.inputs[0]
        assert source is not None
        ir.convenience.replace_all_uses_with(end, source, replace_graph_outputs=True)
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
    return operator
