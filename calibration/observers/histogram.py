"""A histogram of signed values that widens by merging pairs of bins.

A bin's width is a power of two, so bins of one width are unions of bins of the next smaller one:
the counts depend only on which values were seen, never on their order or grouping.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

# Of each sign. With widths in powers of two the largest value lies in the upper half: at least 2048
# bins, the number that TensorRT's entropy calibration uses, cover what was seen.
BINS: Final = 4096

# The smallest width: its reciprocal is still a float32.
_SMALLEST_EXPONENT: Final = -126


@dataclass(slots=True)
class Histogram:
    """Counts of values in bins of equal width, mirrored at zero.

    Attributes:
        counts: Shape (2 * BINS,), int64. ``counts[BINS + i]`` counts x >= 0 in [i, i + 1) widths,
            ``counts[BINS - 1 - i]`` counts x < 0 in (-i - 1, -i] widths.
        exponent: log2 of the bins' width; None before the first value that is not zero.
    """

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(2 * BINS, np.int64))
    exponent: int | None = None

    @property
    def width(self) -> float:
        """The bins' width, in the tensor's units; 0 before the first value that is not zero."""
        return 0.0 if self.exponent is None else math.ldexp(1.0, self.exponent)

    @property
    def edges(self) -> NDArray[np.float64]:
        """The bins' edges, shape (2 * BINS + 1,), in the tensor's units."""
        return np.arange(-BINS, BINS + 1, dtype=np.float64) * self.width

    @property
    def magnitudes(self) -> NDArray[np.int64]:
        """The counts of |x| in bins from 0, shape (BINS,)."""
        return self.counts[BINS:] + self.counts[BINS - 1 :: -1]

    def update(self, values: NDArray[np.float32], largest: float) -> None:
        """Count values.

        Args:
            values: Any shape, all finite.
            largest: No value's magnitude is larger; the bins are made wide enough for it.
        """
        if largest > 0.0:
            self._widen(_exponent_for(largest))
        if self.exponent is None:
            self.counts[BINS] += values.size
            return
        # A multiplication by a power of two is exact, so is the comparison with the edges; what
        # is too small for it falls to zero, in the bin where it belongs.
        bins = (values * np.float32(math.ldexp(1.0, -self.exponent))).astype(np.int32)
        bins -= values < 0.0
        bins += BINS
        self.counts += np.bincount(bins.ravel(), minlength=2 * BINS)

    def merge(self, other: Histogram) -> Histogram:
        """Return the histogram of the values of both."""
        merged = Histogram(self.counts.copy(), self.exponent)
        added = Histogram(other.counts.copy(), other.exponent)
        if added.exponent is not None:
            merged._widen(added.exponent)
        if merged.exponent is not None:
            added._widen(merged.exponent)
        merged.counts += added.counts
        return merged

    def _widen(self, exponent: int) -> None:
        if self.exponent is None:
            self.exponent = exponent  # only zeros so far, they stay in the bin at zero
        while self.exponent < exponent:
            pairs = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate(
                [np.zeros(BINS // 2, np.int64), pairs, np.zeros(BINS // 2, np.int64)]
            )
            self.exponent += 1


def _exponent_for(largest: float) -> int:
    """Return the smallest e with largest < BINS * 2**e."""
    _, exponent = math.frexp(largest)  # largest < 2**exponent
    return max(exponent - int(math.log2(BINS)), _SMALLEST_EXPONENT)
