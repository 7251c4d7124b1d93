"""Rounding to codes that lets gradients pass, with step sizes that are learned.

Steps are learned as logarithms: they stay positive, and a gradient means a relative change
whatever the tensor's unit. Rounding is passed straight through; what is clipped moves its step
only.

Sources: Esser et al. 2020, arXiv:1902.08153 (LSQ: the step's gradient, and its scale); Jain et al.
2019, arXiv:1903.08066 (TQT: thresholds in the log domain).
"""

from __future__ import annotations

from typing import Any, Final

import torch

from ..calibration.scheme import SMALLEST_SCALE

_LARGEST: Final = 65504.0  # FP16's
_TYPICAL_END: Final = 4.0
_STEEPEST: Final = 0.1


def step_factor(size: int, codes: int) -> float:
    """Return what a scale's gradient is multiplied by, so that it learns as fast as weights do.

    LSQ divides a scale's gradient by sqrt(size * codes), which makes its relative changes as large
    as the weights'. The gradient of the logarithm is scale**2 smaller. That would depend on the
    tensor's unit, so scale is put as 4 / codes, as of values with a deviation of one.

    Args:
        size: How many numbers the tensor of one image has.
        codes: How many steps lie between its ends, or on each side of zero where it is symmetric.
    """
    return float((codes / _TYPICAL_END) ** 2 / (size * codes) ** 0.5)


def learned_scales(logarithms: torch.Tensor, factors: torch.Tensor, *, half: bool) -> torch.Tensor:
    """Return the scales that ship, exactly.

    Args:
        logarithms: Of the scales, shape (points,), float32.
        factors: What each one's gradient is multiplied by.
        half: Whether they are numbers that FP16 represents, as symmetric schemes have them.
    """
    found: torch.Tensor = _Scales.apply(logarithms, factors, half)  # type: ignore[no-untyped-call]
    return found


class _Scales(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logarithms: torch.Tensor, factors: torch.Tensor, half: bool
    ) -> torch.Tensor:
        scales = logarithms.detach().exp().clamp(SMALLEST_SCALE, _LARGEST)
        if half:
            scales = scales.half().float()
        ctx.save_for_backward(scales, factors)
        return scales

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        scales, factors = ctx.saved_tensors
        # Bounded, as in TQT: where codes say nearly nothing one step would end a scale's learning.
        return (gradient * scales * factors).clamp(-_STEEPEST, _STEEPEST), None, None


def fake_quantize(values: torch.Tensor, scale: torch.Tensor, zero_point: int) -> torch.Tensor:
    """Return values as int8 codes say them: what QuantizeLinear and DequantizeLinear compute.

    Args:
        values: Of any shape, float32.
        scale: A number.
        zero_point: Of codes -128..127.
    """
    steps = (values / scale).clamp(-128 - zero_point, 127 - zero_point)
    return (steps + (steps.round() - steps).detach()) * scale


def quantize_weights(weights: torch.Tensor, scales: torch.Tensor, axis: int) -> torch.Tensor:
    """Return weights as their codes -127..127 say them; their gradient passes as it is.

    Args:
        weights: Float32.
        scales: Shape (weights.shape[axis],), float32, that clip nothing.
        axis: Of the output channels.
    """
    shape = [1] * weights.ndim
    shape[axis] = -1
    along = scales.reshape(shape)
    # In double, as ``calibration.scheme.quantize_weights``: a tie must fall the same way.
    codes = (weights.detach().double() / along.double()).round().clamp(-127, 127)
    found: torch.Tensor = _Straight.apply(weights, codes.float() * along)  # type: ignore[no-untyped-call]
    return found


class _Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: torch.Tensor, quantized: torch.Tensor) -> torch.Tensor:
        del ctx, weights
        return quantized

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        del ctx
        return gradient, None
