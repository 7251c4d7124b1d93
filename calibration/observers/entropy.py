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
from .observer import Observer

LEVELS: Final = 128

# Of numbers of bins whose divergences are computed at once: bounds the memory.
_ROWS: Final = 512


def entropy_range(observer: Observer) -> Range:
    """Return what of (smallest, largest) lies within (-T, T)."""
    return observer.clipped(entropy_bins)


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
    sums = _Sums(weights)
    kept = np.arange(LEVELS, counts.size + 1)
    parts = np.array_split(kept, -(-kept.size // _ROWS))
    divergences = np.concatenate([sums.divergences(part) for part in parts])
    # Sums in another order differ in the last digits: what differs by less is equal.
    smallest = divergences.min()
    return int(kept[np.flatnonzero(divergences <= smallest + 1e-12)[-1]])


class _Sums:
    """Running sums from which each number of kept bins has its divergence in 128 steps."""

    def __init__(self, weights: NDArray[np.float64]) -> None:
        self.weights = weights
        self.below = _running(weights)
        self.filled = _running(weights > 0)
        self.entropy = _running(_x_log_x(weights))

    def divergences(self, kept: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return KL(P || Q) in nats for each number of bins, infinite where P is where Q is not."""
        total, inside = self.below[-1], self.below[kept]
        beyond = total - inside
        starts = -(-np.arange(LEVELS + 1) * kept[:, None] // LEVELS)
        level_sums = np.diff(self.below[starts], axis=1)
        level_sizes = np.diff(self.filled[starts], axis=1)
        logs = np.log(
            np.divide(level_sums, level_sizes, out=np.ones_like(level_sums), where=level_sums > 0)
        )
        last = self.weights[kept - 1]
        p_log_p = self.entropy[kept] - _x_log_x(last) + _x_log_x(last + beyond)
        p_log_q = (level_sums * logs).sum(axis=1) + beyond * logs[:, -1]
        with np.errstate(divide="ignore", invalid="ignore"):
            found = (p_log_p - p_log_q) / total - np.log(total) + np.log(inside)
        possible = (inside > 0) & ((last > 0) | (beyond == 0))
        return np.where(possible, found, np.inf)


def _running(values: NDArray[np.float64] | NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the sums of the first 0, 1, 2, ... values."""
    return np.append(0.0, np.cumsum(values, dtype=np.float64))


def _x_log_x(values: NDArray[np.float64]) -> NDArray[np.float64]:
    logs = np.log(values, out=np.zeros_like(values), where=values > 0)
    return values * logs
