"""Which operators have weights, and along which axis their output channels lie."""

from __future__ import annotations

import onnx_ir as ir

from .qdq import known


def weight_axis(node: ir.Node) -> int | None:
    """Return the output channels' axis of a node's constant second input; None for no weights."""
    if len(node.inputs) < 2:
        return None
    weights = known(node.inputs[1])
    if weights is None or known(node.inputs[0]) is not None:
        return None
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        return 0 if node.attributes.get_int("transB", 0) else 1
    if node.op_type == "MatMul" and weights.ndim == 2:
        return 1
    return None
