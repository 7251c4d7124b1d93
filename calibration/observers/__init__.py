"""Observers, and the methods that choose a range from what one saw."""

from __future__ import annotations

from ...core.ranges import CalibrationMethod, Range
from .entropy import entropy_range
from .histogram import Histogram
from .minmax import minmax_range
from .mse import mse_range
from .observer import Observer
from .percentile import percentile_range


def method_for(method: CalibrationMethod, activation_bits: int) -> CalibrationMethod:
    """Return the method that activations of so many bits are given.

    Entropy and MSE weigh what is clipped against steps of 8 bits. Steps of 16 are 256 times finer:
    clipping costs more than it gains, and everything that was seen is kept.
    """
    return "minmax" if activation_bits == 16 and method in ("entropy", "mse") else method


def choose_range(observer: Observer, method: CalibrationMethod, percentile: float) -> Range:
    """Return the interval of a tensor's values to keep.

    Args:
        observer: What was seen: at least one value.
        method: How to choose.
        percentile: What the percentile method keeps, in percent; others do not read it.
    """
    match method:
        case "minmax":
            return minmax_range(observer)
        case "entropy":
            return entropy_range(observer)
        case "percentile":
            return percentile_range(observer, percentile)
        case "mse":
            return mse_range(observer)


__all__ = ["Histogram", "Observer", "choose_range", "method_for"]
