"""Percentile: what few values lie beyond is clipped."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...core.ranges import Range
from .observer import Observer


def percentile_range(observer: Observer, percentile: float) -> Range:
    """Return the smallest interval of whole bins that clips few enough values.

    Of the values counted at most (100 - percentile) / 2 percent lie above and as many below; where
    that is not even one value, nothing is clipped.

    Args:
        observer: The tensor.
        percentile: 50..100; 100 is min-max.
    """
    counts = observer.histogram.counts
    spare = int(counts.sum() * (100 - percentile) / 200)
    if observer.histogram.exponent is None or spare == 0:
        return Range(observer.lo, observer.hi)
    edges = observer.histogram.edges
    return observer.within(-_bins(counts[::-1], spare, edges), _bins(counts, spare, edges))


def _bins(counts: NDArray[np.int64], spare: int, edges: NDArray[np.float64]) -> float:
    """Return the lowest edge above which at most ``spare`` values lie."""
    below = np.cumsum(counts)
    return float(edges[int(np.searchsorted(below, below[-1] - spare)) + 1])
