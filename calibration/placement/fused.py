"""The placement that TensorRT fuses.

Q/DQ on the inputs of convolutions and matrix products and on their weights; nothing between them
and what follows; at a residual addition, on the skip branch only. Biases stay float.

Source: https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-quantized-types.html
"""

from __future__ import annotations

import onnx_ir as ir

from .qdq import Qdq, is_dequantized, known
from .weights import weight_axis


def place_fused(model: ir.Model, qdq: Qdq) -> None:
    """Insert the pairs in place; those that the graph has stay as they are."""
    nodes = list(model.graph)
    quantized: dict[str, ir.Value] = {}
    wanted: list[ir.Value] = []
    weighted: list[tuple[ir.Node, int]] = []
    for node in nodes:
        axis = weight_axis(node)
        if axis is not None and node.inputs[0] is not None and node not in qdq.left:
            weighted.append((node, axis))
            wanted.append(node.inputs[0])
    # Which branch of an addition is the skip is read before any pair is in the way.
    skips = [
        (node, index, node.inputs[index])
        for node in nodes
        if node not in qdq.left
        for index in [_skip_branch(node)]
        if index is not None
    ]
    for node, axis in weighted:
        source = node.inputs[0]
        assert source is not None
        qdq.weights(node, axis=axis, input_range=qdq.range(source))
    computing = {node for node, _ in weighted}
    for value in wanted:
        name = str(value.name)
        if name not in quantized:
            quantized[name] = _pair_for(qdq, value, computing)
    for node, index, skip in skips:
        assert skip is not None
        end = quantized.get(str(skip.name))
        if end is not None:
            node.replace_input_with(index, end)
        else:
            qdq.edge(node, index, qdq.params(skip))


def _pair_for(qdq: Qdq, value: ir.Value, computing: set[ir.Node]) -> ir.Value:
    """Put a pair on a value for the weighted nodes that read it; others read it unquantized."""
    if is_dequantized(value):
        return value
    readers = [(node, index) for node, index in value.uses() if node in computing and index == 0]
    first, first_index = readers[0]
    qdq.edge(first, first_index, qdq.params(value))
    end = first.inputs[first_index]
    assert end is not None
    for node, index in readers[1:]:
        node.replace_input_with(index, end)
    return end


def _skip_branch(node: ir.Node) -> int | None:
    """Return which input of a residual addition is quantized; None where it is none.

    The branch that ends in a convolution of its own is fused with the addition; the other is the
    skip. Where both do (a projection), the second is taken as the skip.
    """
    if node.op_type != "Add" or any(known(value) is not None for value in node.inputs):
        return None
    if any(is_dequantized(value) for value in node.inputs):
        return None
    ends = [_ends_in_weights(value) for value in node.inputs]
    if ends == [True, False] or ends == [True, True]:
        return 1
    return 0 if ends == [False, True] else None


def _ends_in_weights(value: ir.Value | None) -> bool:
    producer = value.producer() if value is not None else None
    return (
        value is not None
        and producer is not None
        and weight_axis(producer) is not None
        and len(value.uses()) == 1
    )
