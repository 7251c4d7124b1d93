"""What makes a network easier to quantize without training: each repair by itself."""

from __future__ import annotations

from .bias import corrected_bias
from .equalize import equalized
from .moments import Moments, Operand, collect_moments, operands
from .rounding import rounded

__all__ = [
    "Moments",
    "Operand",
    "collect_moments",
    "corrected_bias",
    "equalized",
    "operands",
    "rounded",
]
