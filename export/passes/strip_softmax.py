"""Takes a final Softmax off: artefacts end at logits, softmax is the runtime's."""

from __future__ import annotations

import onnx_ir as ir

from ...core.errors import GraphError


def strip_softmax(model: ir.Model) -> bool:
    """Remove a Softmax or LogSoftmax that the graph's output comes from, in place.

    Returns:
        Whether there was one.

    Raises:
        GraphError: The output comes from a Sigmoid: such a model answers several questions with
            yes or no, and a softmax over them means nothing.
    """
    graph = model.graph
    output = graph.outputs[0]
    node = output.producer()
    while node is not None and node.op_type in {"Identity", "Cast"}:
        source = node.inputs[0]
        node = source.producer() if source is not None else None
    if node is None:
        return False
    if node.op_type == "Sigmoid":
        raise GraphError(
            f"the model ends in Sigmoid (node {node.name!r}): a multi-label model, expected one "
            "that gives logits of exclusive classes"
        )
    rank = len(output.shape) if output.shape is not None else 2
    axis = node.attributes.get_int("axis", -1)
    if node.op_type not in {"Softmax", "LogSoftmax"} or axis % rank != rank - 1:
        return False
    logits = node.inputs[0]
    assert logits is not None
    name = output.name
    output.name = f"{name}_probabilities"
    logits.name = name
    graph.outputs[0] = logits
    for dead in _chain(node, output):
        graph.remove(dead, safe=True)
    return True


def _chain(first: ir.Node, output: ir.Value) -> list[ir.Node]:
    """Return the nodes from the output back to ``first``, which nothing reads any more."""
    chain = []
    node = output.producer()
    while node is not None:
        chain.append(node)
        if node is first or node.inputs[0] is None:
            break
        node = node.inputs[0].producer()
    return chain
