"""KL divergence: the threshold at which 128 levels lose the least information.

Source: S. Migacz, "8-bit Inference with TensorRT", GTC 2017, with the choices of NVIDIA's
pytorch-quantization: the bin at zero takes its neighbour's count, so that the zeros of a ReLU do
not decide.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...core.ranges import Range
from .histogram import MagnitudeHistogram
from .minmax import MinMaxObserver

LEVELS: Final = 128


class EntropyObserver:
    """Chooses a threshold T on |x|; the range is what of (min, max) lies within (-T, T)."""

    def __init__(self) -> None:
        self.extremes = MinMaxObserver()
        self.histogram = MagnitudeHistogram()

    def update(self, values: NDArray[np.float32]) -> None:
        """Take in values of any shape, all finite."""
        self.extremes.update(values)
        self.histogram.update(values)

    def range(self) -> Range:
        """Return (max(min, -T), min(max, T))."""
        extremes = self.extremes.range()
        if self.histogram.exponent is None:
            return extremes
        used = int(np.flatnonzero(self.histogram.counts)[-1]) + 1
        threshold = entropy_bins(self.histogram.counts[:used]) * self.histogram.width
        return Range(max(extremes.lo, -threshold), min(extremes.hi, threshold))


def entropy_bins(counts: NDArray[np.int64]) -> int:
    """Return how many of the first bins to keep, between 128 and all.

    For each number of kept bins, P is their counts with all that lies beyond added to the last,
    Q is the same counts spread evenly over the non-empty bins of each of 128 levels; the number
    with the smallest KL(P || Q) is taken, the largest among equals.

    Args:
        counts: Shape (bins,), of |x| in bins of equal width from 0.
    """
    if counts.size <= LEVELS:
        return int(counts.size)
    weights = counts.astype(np.float64)
    weights[0] = weights[1]
    best, best_divergence = counts.size, np.inf
    beyond = weights.sum() - np.cumsum(weights)
    for kept in range(counts.size, LEVELS - 1, -1):
        divergence = _divergence(weights[:kept], float(beyond[kept - 1]))
        if divergence < best_divergence:
            best, best_divergence = kept, divergence
    return best


def _divergence(kept: NDArray[np.float64], beyond: float) -> float:
    """Return KL(P || Q) in nats, infinite where P is where Q is not."""
    starts = -(-np.arange(LEVELS) * kept.size // LEVELS)
    filled = kept > 0
    sums = np.add.reduceat(kept, starts)
    sizes = np.add.reduceat(filled.astype(np.float64), starts)
    means = np.divide(sums, sizes, out=np.zeros(LEVELS), where=sizes > 0)
    levels = np.diff(np.append(starts, kept.size))
    spread = np.repeat(means, levels)[filled]
    reference = kept.copy()
    reference[-1] += beyond
    if not filled[-1] and beyond > 0:
        return float("inf")
    reference = reference[filled]
    total = reference.sum()
    if total == 0.0:
        return float("inf")
    p = reference / total
    q = spread / spread.sum()
    return float(np.sum(p * np.log(p / q)))
