"""A histogram of magnitudes that widens by merging pairs of bins.

A bin's width is a power of two, so bins of one width are unions of bins of the next smaller one:
the counts depend only on which values were seen, never on their order or grouping.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

# With widths in powers of two the largest value lies in the upper half: at least 2048 bins, the
# number that TensorRT's entropy calibration uses, cover what was seen.
BINS: Final = 4096


class MagnitudeHistogram:
    """Counts of |x| in ``BINS`` bins of ``width`` from 0.

    Attributes:
        counts: Shape (BINS,), int64.
        exponent: log2 of the bins' width; None before the first non-zero value.
    """

    def __init__(self) -> None:
        self.counts: NDArray[np.int64] = np.zeros(BINS, np.int64)
        self.exponent: int | None = None

    @property
    def width(self) -> float:
        """The bins' width, in the tensor's units; 0 before the first non-zero value."""
        return 0.0 if self.exponent is None else math.ldexp(1.0, self.exponent)

    def update(self, values: NDArray[np.float32]) -> None:
        """Count values of any shape, all finite."""
        magnitudes = np.abs(values).ravel()
        largest = float(magnitudes.max(initial=0.0))
        if largest > 0.0:
            self._widen(_exponent_for(largest))
        if self.exponent is None:
            self.counts[0] += magnitudes.size
            return
        # A multiplication by a power of two is exact, so is the comparison with the edges.
        bins = np.ldexp(magnitudes, -self.exponent).astype(np.int32)
        self.counts += np.bincount(bins, minlength=BINS)

    def _widen(self, exponent: int) -> None:
        if self.exponent is None:
            self.exponent = exponent
            return
        while self.exponent < exponent:
            merged = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate([merged, np.zeros(BINS // 2, np.int64)])
            self.exponent += 1


def _exponent_for(largest: float) -> int:
    """Return the smallest e with largest < BINS * 2**e."""
    _, exponent = math.frexp(largest)  # largest < 2**exponent
    return exponent - int(math.log2(BINS))
