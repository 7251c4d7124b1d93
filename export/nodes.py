"""Reading an ONNX node."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..core.errors import UnsupportedOperatorError

COMPUTING: Final = ("Conv", "Gemm", "MatMul")
"""The operators whose second input is weights, where it is constant."""


def node_name(node: ir.Node) -> str:
    """Return the node's name, or what it makes where it has none."""
    return node.name or str(node.outputs[0].name)


def attribute(node: ir.Node, name: str, default: Any) -> Any:
    """Return an attribute's value, or ``default`` where the node does not set it."""
    found = node.attributes.get(name)
    return default if found is None else found.value


def constant(value: ir.Value | None) -> NDArray[Any] | None:
    """Return the array of an initializer, or None for anything else."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return value.const_value.numpy()


def is_constant(value: ir.Value | None) -> bool:
    """Say whether a value is an initializer, or one behind a DequantizeLinear."""
    if value is None or value.is_graph_input():
        return False
    node = value.producer()
    if node is not None and node.op_type == "DequantizeLinear":
        return all(is_constant(source) for source in node.inputs if source is not None)
    return value.const_value is not None


def shape_of(value: ir.Value | None) -> tuple[int, ...]:
    """Return a value's static shape, which ``prepare`` made sure of."""
    assert value is not None
    assert value.shape is not None
    return tuple(int(size) for size in value.shape.numpy())


def optional_input(node: ir.Node, index: int) -> ir.Value | None:
    """Return an input, or None where it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def dequantized(node: ir.Node) -> NDArray[np.float64] | None:
    """Return what a DequantizeLinear makes of a constant, exactly; None where it is no constant.

    In double: int32 codes (biases) need it, a float32 has 24 bits.

    Raises:
        UnsupportedOperatorError: The scales are per block.
    """
    codes, scale, given = (constant(optional_input(node, index)) for index in range(3))
    if codes is None or scale is None:
        return None
    if given is None and optional_input(node, 2) is not None:
        return None
    if scale.ndim > 1 or attribute(node, "block_size", 0):
        raise unsupported(node, "its scales are per block", "quantize weights per channel")
    zero_point = np.zeros(scale.shape) if given is None else given.astype(np.float64)
    if scale.size > 1:
        axis = attribute(node, "axis", 1) % codes.ndim
        along = tuple(-1 if i == axis else 1 for i in range(codes.ndim))
        scale, zero_point = scale.reshape(along), zero_point.reshape(along)
    values: NDArray[np.float64] = (codes.astype(np.float64) - zero_point) * scale.astype(np.float64)
    return values


def unsupported(node: ir.Node, found: str, fix: str) -> UnsupportedOperatorError:
    """Return the error for a form of an operator that has no lowering."""
    return UnsupportedOperatorError(
        operator=node.op_type, node=node_name(node), found=found, fix=fix
    )
