"""Mean squared error: the threshold at which rounding and clipping cost least together."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...core.ranges import Range
from .observer import Observer

LARGEST_CODE: Final = 127
_THRESHOLDS: Final = 256


def mse_range(observer: Observer) -> Range:
    """Return what of (smallest, largest) lies within (-T, T).

    The codes are the symmetric scheme's, -127..127 times T / 127: an asymmetric scheme has finer
    ones, and would clip a little more.
    """
    return observer.clipped(mse_bins)


def mse_bins(counts: NDArray[np.int64]) -> int:
    """Return how many of the first bins to keep: the largest of those with the smallest error.

    A bin's values are taken to lie at its centre. Every number of bins up to 256 is tried, and 256
    larger ones in even steps.

    Args:
        counts: Shape (bins,), of |x| in bins of equal width from 0.
    """
    tried = np.unique(
        np.append(
            np.arange(1, min(counts.size, _THRESHOLDS) + 1),
            np.rint(np.linspace(1, counts.size, _THRESHOLDS)).astype(np.int64),
        )
    )
    filled = np.flatnonzero(counts)
    centres, weights = filled.astype(np.float64) + 0.5, counts[filled].astype(np.float64)
    errors = [_error(centres, weights, int(kept)) for kept in tried]
    return int(tried[len(tried) - 1 - int(np.argmin(errors[::-1]))])


def _error(centres: NDArray[np.float64], weights: NDArray[np.float64], kept: int) -> float:
    """Return the summed squared error, in bins, of codes up to ``kept`` bins."""
    step = kept / LARGEST_CODE
    codes = np.minimum(np.rint(centres / step), LARGEST_CODE)
    return float(np.dot(weights, (centres - codes * step) ** 2))
