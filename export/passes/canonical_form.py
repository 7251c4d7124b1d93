"""The one form of Q/DQ that placement, lowering and TensorRT read; ``CanonicalQdq`` makes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import onnx_ir as ir

from ..nodes import constant, node_name, optional_input

QDQ: Final = frozenset({"QuantizeLinear", "DequantizeLinear"})

WEIGHTED: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""The operators whose second input is weights, where it is constant."""


def outside_canonical_form(graph: ir.Graph) -> Iterator[str]:
    """Say of each node that is not in the form why.

    A scale is a float32 constant, positive; a zero point is a constant of the scale's shape, which
    is () for activations; codes are signed, but for those of activations that others than
    DequantizeLinear know; no Clip stands on codes.
    """
    for node in graph:
        fault = _fault(node) if node.op_type in QDQ else None
        if node.op_type == "Clip" and _is_made_by(node.inputs[0], "QuantizeLinear"):
            fault = "a Clip of codes"
        if fault is not None:
            yield f"{fault} ({node.op_type}, node {node_name(node)!r})"


def has_private_codes(quantize: ir.Node) -> bool:
    """Say whether nothing but DequantizeLinear sees the codes of a QuantizeLinear."""
    codes = quantize.outputs[0]
    return not codes.is_graph_output() and all(
        use.node.op_type == "DequantizeLinear" for use in codes.uses()
    )


def _fault(node: ir.Node) -> str | None:
    source = node.inputs[0]
    scale, zero_point = (constant(optional_input(node, index)) for index in (1, 2))
    if scale is None or zero_point is None:
        return "a scale or zero point that is not written out"
    if scale.dtype != np.float32 or not (np.isfinite(scale).all() and (scale > 0).all()):
        return f"{scale.dtype} scales, not all of them positive numbers of float32"
    is_constant = source is not None and source.const_value is not None
    if zero_point.shape != scale.shape or (scale.shape != () and not is_constant):
        return f"scales of shape {scale.shape} with zero points of shape {zero_point.shape}"
    quantize = node if node.op_type == "QuantizeLinear" else None
    if source is not None and _is_made_by(source, "QuantizeLinear"):
        quantize = source.producer()
    private = is_constant if quantize is None else has_private_codes(quantize)
    if private and zero_point.dtype.kind != "i":
        return f"{zero_point.dtype} codes"
    return None


def _is_made_by(value: ir.Value | None, operator: str) -> bool:
    node = value.producer() if value is not None else None
    return node is not None and node.op_type == operator
