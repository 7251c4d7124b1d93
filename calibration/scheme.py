"""From ranges to scales and zero points, per scheme.

Scales of weights and of symmetric activations are rounded up to numbers that FP16 represents: a
graph over FP16 then carries the very scales that its float32 simulation has. It costs at most 0.1 %
of a step. An asymmetric scheme, and one of 16 bits, never runs over FP16 and keeps the scale that
its range gives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..core.errors import CalibrationError
from ..core.ranges import Range
from ..core.values import Granularity, QuantScheme

SMALLEST_SCALE: Final = 2.0**-24  # FP16's smallest positive number

# A bias is int32 at (input scale * weight scale); one bit is left for the sum of products.
_BIAS_LIMIT: Final = 2.0**30
# XNNPACK takes (input scale * weight scale / output scale) down to 2**-32.
_SMALLEST_SHARE: Final = 2.0**-20


@dataclass(frozen=True, slots=True)
class QuantParams:
    """real = (code - zero_point) * scale, codes -128..127, or -32768..32767 in 16 bits."""

    scale: float
    zero_point: int
    bits: int = 8

    @property
    def dtype(self) -> np.dtype[np.signedinteger[Any]]:
        """The codes' type: int8 or int16."""
        return np.dtype(f"int{self.bits}")


def activation_params(interval: Range, scheme: QuantScheme) -> QuantParams:
    """Return the parameters of a tensor whose values lie in ``interval``; 0 is always a code.

    Raises:
        CalibrationError: It needs a scale beyond FP16's largest number.
    """
    largest = max(abs(interval.lo), abs(interval.hi))
    if scheme.activation_bits == 16:
        return QuantParams(float(np.float32(max(largest / 32767, SMALLEST_SCALE))), 0, 16)
    if scheme.activations == "symmetric":
        return QuantParams(float(half_scale(largest / 127)), 0)
    lo, hi = min(interval.lo, 0.0), max(interval.hi, 0.0)
    if lo == hi:
        return QuantParams(SMALLEST_SCALE, -128)
    # The zero point that the range gives is no integer: each of its neighbours needs its own scale
    # to cover the range without clipping, the smaller one is taken.
    zero_point = math.floor(-128 - 255 * lo / (hi - lo))
    choices = []
    for candidate in (zero_point - 1, zero_point, zero_point + 1):
        below, above = candidate + 128, 127 - candidate
        if below >= (lo < 0.0) and above >= (hi > 0.0):
            needed = max(-lo / below if below else 0.0, hi / above if above else 0.0)
            choices.append((needed, candidate))
    needed, zero_point = min(choices)
    return QuantParams(float(np.float32(max(needed, SMALLEST_SCALE))), zero_point)


def range_of(params: QuantParams, scheme: QuantScheme, like: Range) -> Range:
    """Return a range from which ``activation_params`` derives just these parameters.

    Args:
        params: Of 8 bits; a symmetric scheme's scale is a number that FP16 represents.
        scheme: What derives them.
        like: The range that the tensor had; a symmetric one keeps the proportion of its ends, so
            that an asymmetric scheme still finds the side that has no values.
    """
    scale, zero_point = params.scale, params.zero_point
    if scheme.activations == "asymmetric":
        return Range((-128 - zero_point) * scale, (127 - zero_point) * scale)
    largest, end = max(-like.lo, like.hi), 127 * scale
    if largest <= 0:
        return Range(0.0, end)
    lo, hi = (
        math.copysign(end, side) if abs(side) == largest else end * (side / largest)
        for side in (like.lo, like.hi)
    )
    return Range(lo, hi)


def half_scale(scale: float | NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the smallest FP16 number that is not below ``scale``, as float32.

    Raises:
        CalibrationError: It is beyond FP16's largest number.
    """
    wanted = np.maximum(np.asarray(scale, np.float64), SMALLEST_SCALE)
    if not np.all(wanted <= float(np.finfo(np.float16).max)):
        raise CalibrationError(
            f"a range needs a scale of {float(wanted.max()):g}, beyond FP16's 65504; "
            "the model's activations or weights are unusable"
        )
    half = wanted.astype(np.float16)
    low = half.astype(np.float64) < wanted
    with np.errstate(over="ignore"):  # of the largest number, whose next is not used
        above = np.nextafter(half, np.float16(np.inf))
    return np.where(low, above, half).astype(np.float32)


def weight_scales(
    weights: NDArray[np.float32],
    *,
    axis: int,
    bias: NDArray[np.float32] | None = None,
    input_range: Range | None = None,
    granularity: Granularity = "per_channel",
) -> NDArray[np.float32]:
    """Return one scale per output channel, the same for every scheme of a granularity.

    A channel's largest magnitude maps to code 127. A dead or nearly dead channel gets a scale
    large enough that its bias fits int32 at (input scale * weight scale).

    Args:
        weights: Any shape, float32, e.g. (O, I, kH, kW) for a convolution.
        axis: The output channels' axis.
        bias: Shape (O,), float32.
        input_range: Of the activations that the weights meet; bounds the input scale.
        granularity: "per_tensor" gives all channels the largest of their scales.

    Returns:
        Shape (weights.shape[axis],), float32, positive.

    Raises:
        CalibrationError: ``weights`` holds a NaN or an infinity.
    """
    if not np.isfinite(weights).all():
        raise CalibrationError("weights hold a NaN or an infinity; train or load the model again")
    others = tuple(other for other in range(weights.ndim) if other != axis % weights.ndim)
    largest = np.abs(weights).max(axis=others).astype(np.float64)
    scales = np.maximum(largest / 127, largest.max(initial=0.0) / 127 * _SMALLEST_SHARE)
    if bias is not None and input_range is not None:
        # 255 steps of the asymmetric scheme: the smallest input scale that any scheme has.
        input_scale = max(
            (max(input_range.hi, 0.0) - min(input_range.lo, 0.0)) / 255, SMALLEST_SCALE
        )
        scales = np.maximum(scales, np.abs(bias.astype(np.float64)) / (input_scale * _BIAS_LIMIT))
    if granularity == "per_tensor":
        scales = np.full_like(scales, scales.max(initial=0.0))
    return half_scale(scales)


def quantize_weights(
    weights: NDArray[np.float32], scales: NDArray[np.float32], *, axis: int
) -> NDArray[np.int8]:
    """Return the codes -127..127 of ``weights`` (-128 computes wrongly on Cortex-A72).

    Args:
        weights: Any shape, float32.
        scales: Shape (weights.shape[axis],), float32.
        axis: The output channels' axis.
    """
    shape = [1] * weights.ndim
    shape[axis] = -1
    codes = np.rint(weights.astype(np.float64) / scales.astype(np.float64).reshape(shape))
    return np.clip(codes, -127, 127).astype(np.int8)
