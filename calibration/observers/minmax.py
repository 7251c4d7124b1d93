"""The smallest and the largest value."""

from __future__ import annotations

from ...core.ranges import Range
from .observer import Observer


def minmax_range(observer: Observer) -> Range:
    """Return (smallest, largest): nothing is clipped on the calibration images."""
    return Range(observer.lo, observer.hi)
