"""Unsigned codes for activations and codes for biases, as x86 CPUs multiply them fastest.

Scales stay, and a zero point moves with its codes: uint8 code c means what int8 code c - 128 does.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from .qdq import Qdq, constant

_SHIFT: Final = 128
_BIASED: Final = frozenset({"Conv", "Gemm"})


def make_unsigned(qdq: Qdq) -> None:
    """Turn int8 activations of a placed graph into uint8, float biases into int32, in place.

    A bias is int32 at (input scale * weight scale), so that the sum of products takes it as it is.
    """
    for node in list(qdq.graph):
        if node.op_type in _BIASED:
            _quantize_bias(node, qdq)
    for node in list(qdq.graph):
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            _shift(node, qdq)


def _shift(node: ir.Node, qdq: Qdq) -> None:
    if not _is_pair(node):
        return
    zero_point = constant(node.inputs[2])
    # Weights have a zero point per channel, or are read by what multiplies; they stay signed.
    if zero_point is None or zero_point.ndim or zero_point.dtype != np.int8:
        return
    if node.op_type == "DequantizeLinear" and _is_weight(node):
        return
    moved = qdq.scalar(int(zero_point) + _SHIFT, np.dtype(np.uint8))
    node.replace_input_with(2, moved)
    if node.op_type == "QuantizeLinear":
        node.outputs[0].type = ir.TensorType(ir.DataType.UINT8)
        return
    codes = constant(node.inputs[0])
    if codes is not None:  # an operand beside an activation
        shifted = (codes.astype(np.int16) + _SHIFT).astype(np.uint8)
        node.replace_input_with(0, qdq.register(f"{node.outputs[0].name}_uint8", shifted))


def _is_pair(node: ir.Node) -> bool:
    """Say whether codes go straight from Q to DQ, or are constant.

    In a graph of another tool they may be pooled or turned between, which is done as they are.
    """
    if node.op_type == "QuantizeLinear":
        readers = {use.node.op_type for use in node.outputs[0].uses()}
        return readers == {"DequantizeLinear"} and not node.outputs[0].is_graph_output()
    ahead = node.inputs[0].producer() if node.inputs[0] is not None else None
    return ahead is None or (ahead.op_type == "QuantizeLinear" and _is_pair(ahead))


def _is_weight(node: ir.Node) -> bool:
    if constant(node.inputs[0]) is None:
        return False
    return any(
        use.node.op_type in {*_BIASED, "MatMul"} and use.idx == 1 for use in node.outputs[0].uses()
    )


def _quantize_bias(node: ir.Node, qdq: Qdq) -> None:
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    ahead, weights = (_scale(value) for value in node.inputs[:2])
    if bias is None or bias.dtype != np.float32 or bias.ndim != 1:
        return
    if ahead is None or weights is None:
        return
    if node.op_type == "Gemm" and _factors(node) != (1.0, 1.0):
        return
    scale = (ahead.astype(np.float64) * weights).astype(np.float32).reshape(-1)
    if scale.size not in {1, bias.size}:
        return  # one bias for channels of several scales
    scale = np.broadcast_to(scale, bias.shape).copy()
    limits = np.iinfo(np.int32)
    codes = np.rint(bias.astype(np.float64) / scale)
    if codes.size and not (limits.min <= codes.min() and codes.max() <= limits.max):
        return  # it stays float: a weight's scale that another tool chose
    name = f"{node.inputs[2].name}_{node.name}" if node.inputs[2] is not None else str(node.name)
    zeros = np.zeros(bias.shape, np.int32)
    node.replace_input_with(2, qdq.dequantized(name, codes.astype(np.int32), scale, zeros, 0))


def _scale(value: ir.Value | None) -> NDArray[Any] | None:
    producer = value.producer() if value is not None else None
    if producer is None or producer.op_type != "DequantizeLinear":
        return None
    return constant(producer.inputs[1])


def _factors(node: ir.Node) -> tuple[float, float]:
    return node.attributes.get_float("alpha", 1.0), node.attributes.get_float("beta", 1.0)
