"""What QuantizeLinear and DequantizeLinear of an ONNX graph say, in TFLite's terms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...core.errors import GraphError
from ..nodes import attribute, constant, node_name, unsupported

Codes = NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Quant:
    """One scale and zero point for a whole tensor: value = scale * (code - zero_point).

    Attributes:
        scale: A float32, kept to the letter.
        zero_point: -128..127; 0 in 16 bits.
        bits: 8 or 16, of a signed code.
    """

    scale: float
    zero_point: int
    bits: int = 8

    @property
    def dtype(self) -> np.dtype[Any]:
        """The codes' type: int8 or int16."""
        return np.dtype(f"int{self.bits}")

    @property
    def lowest(self) -> int:
        """The smallest code."""
        return -(1 << (self.bits - 1))

    def codes(self, values: NDArray[np.float32]) -> NDArray[Any]:
        """Return the codes of values, as QuantizeLinear rounds them."""
        steps: NDArray[np.float32] = np.rint(values / np.float32(self.scale)) + self.zero_point
        return steps.clip(self.lowest, -self.lowest - 1).astype(self.dtype)


LOGISTIC: Final = {8: Quant(1 / 256, -128), 16: Quant(1 / 32768, 0, 16)}
"""By width, the only parameters that TFLite's LOGISTIC and (in 8 bits) SOFTMAX give."""

TANH: Final = {8: Quant(1 / 128, 0), 16: Quant(1 / 32768, 0, 16)}
"""By width, the only parameters that TFLite's TANH gives."""

# What a type's codes are above those of the signed type of its width.
_SHIFTS: Final = {
    np.dtype(np.int8): 0, np.dtype(np.uint8): 1 << 7,
    np.dtype(np.int16): 0, np.dtype(np.uint16): 1 << 15,
}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedWeight:
    """A symmetric int8 constant.

    Attributes:
        codes: As in the graph.
        scales: Shape (channels,) along ``axis``, or (1,) where ``axis`` is None; float32.
        axis: The channel axis.
    """

    codes: Codes
    scales: NDArray[np.float32]
    axis: int | None


def parameters(node: ir.Node) -> Quant:
    """Return the per-tensor parameters of a Q or DQ on an activation, as int8 or int16.

    uint8 is the grid of int8 with every code 128 higher, uint16 that of int16, 32768 higher.

    Raises:
        UnsupportedOperatorError: Per-channel or per-block, computed at run time, of another type,
            or asymmetric in 16 bits.
    """
    scale = constant(node.inputs[1])
    zero_point = _zero_point(node)
    if scale is None or scale.size != 1 or zero_point is None or zero_point.size != 1:
        raise unsupported(
            node,
            "its scale or zero point is not one constant for the whole activation",
            "give activations one constant scale and zero point",
        )
    if scale.dtype != np.float32 or not (np.isfinite(scale).all() and scale.min() > 0):
        raise GraphError(
            f"{node.op_type} (node {node_name(node)!r}): expected a positive float32 scale, "
            f"found {scale.dtype} {scale.ravel()[0]}; calibrate the model again"
        )
    shifted = shifted_codes(zero_point)
    if shifted is None:
        raise unsupported(
            node, f"its codes are {zero_point.dtype}", "quantize activations to 8 or 16 bits"
        )
    quant = Quant(float(scale.ravel()[0]), int(shifted.ravel()[0]), 8 * shifted.itemsize)
    if quant.bits == 16 and quant.zero_point:
        found = int(zero_point.ravel()[0])
        raise unsupported(
            node,
            f"its {zero_point.dtype} zero point is {found}, and TFLite's 16-bit activations are "
            "symmetric",
            f"quantize them symmetrically (zero point {found - quant.zero_point})",
        )
    return quant


def finer(wanted: Quant, grid: Quant) -> bool:
    """Say whether values on a grid lose more than rounding where others are wanted: 10 %."""
    return wanted.scale < 0.9 * grid.scale


def shifted_codes(codes: NDArray[Any]) -> NDArray[Any] | None:
    """Return int8, uint8, int16 or uint16 codes as the signed type of their width, else None."""
    shift = _SHIFTS.get(codes.dtype)
    if shift is None:
        return None
    return (codes.astype(np.int32) - shift).astype(f"int{8 * codes.itemsize}")


def is_dynamic(value: ir.Value | None) -> bool:
    """Say whether an activation is quantized and dequantized with what it is as it runs."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "DequantizeLinear" or node.inputs[0] is None:
        return False
    source = node.inputs[0].producer()
    return source is not None and source.op_type == "DynamicQuantizeLinear"


def quantized_weight(value: ir.Value | None) -> QuantizedWeight | None:
    """Return the int8 constant behind a DequantizeLinear, or None where there is none.

    Raises:
        UnsupportedOperatorError: Asymmetric, per block, or of fewer than 8 bits.
        GraphError: Code -128, which some Arm kernels multiply wrongly.
    """
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "DequantizeLinear":
        return None
    codes, scale, zero_point = constant(node.inputs[0]), constant(node.inputs[1]), _zero_point(node)
    if codes is None or scale is None or zero_point is None:
        return None
    axis = attribute(node, "axis", 1)
    if codes.dtype not in (np.int8, np.uint8):
        raise unsupported(node, f"its codes are {codes.dtype}", "quantize weights to int8")
    if scale.ndim > 1 or attribute(node, "block_size", 0):
        raise unsupported(node, "its scales are per block", "quantize weights per channel")
    offset = 128 if codes.dtype == np.uint8 else 0
    if (zero_point.astype(np.int32) != offset).any():
        raise unsupported(node, "it is asymmetric", "quantize weights symmetrically (zero point 0)")
    shifted = codes if not offset else (codes.astype(np.int16) - offset).astype(np.int8)
    if shifted.min(initial=0) == -128:
        raise GraphError(
            f"DequantizeLinear (node {node_name(node)!r}): expected weight codes -127..127, found "
            "-128, which int8 kernels of some Arm cores multiply wrongly; quantize weights with a "
            "narrow (symmetric) range"
        )
    return QuantizedWeight(
        codes=shifted,
        scales=scale.astype(np.float32).ravel(),
        axis=axis % codes.ndim if scale.size > 1 else None,
    )


def _zero_point(node: ir.Node) -> NDArray[Any] | None:
    """Return the zero point, zeros of the codes' type where it is left out."""
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        return constant(node.inputs[2])
    scale = constant(node.inputs[1])
    if scale is None:
        return None
    codes = node.outputs[0] if node.op_type == "QuantizeLinear" else node.inputs[0]
    dtype = codes.dtype.numpy() if codes is not None and codes.dtype is not None else np.uint8
    return np.zeros(scale.shape, dtype)
