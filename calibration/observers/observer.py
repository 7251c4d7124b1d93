"""What a tensor's values were over all images, in memory that does not grow with their number."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...core.ranges import Range
from .histogram import Histogram

VALUES_PER_IMAGE: Final = 8192
"""Of a tensor with twice as many or more, about this many values per image are counted."""


@dataclass(slots=True)
class Observer:
    """The smallest and the largest of all values, and a histogram: every method's input.

    The extremes are exact. The histogram counts every value of a tensor of fewer than
    2 * ``VALUES_PER_IMAGE``, and of a larger one those on a lattice, the same in every image.

    Attributes:
        lo: Smallest value; infinity before the first.
        hi: Largest value; -infinity before the first.
        histogram: The counts.
    """

    lo: float = math.inf
    hi: float = -math.inf
    histogram: Histogram = field(default_factory=Histogram)

    def update(
        self, values: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Take in the values of some images.

        Args:
            values: Shape (images, values of one image), at least one of each.

        Returns:
            Each image's smallest and largest value, shape (images,); not finite where a value is
            not: nothing was taken in then.
        """
        lows, highs = values.min(axis=1), values.max(axis=1)
        lo, hi = float(lows.min()), float(highs.max())
        if math.isfinite(lo) and math.isfinite(hi):
            self.lo, self.hi = min(self.lo, lo), max(self.hi, hi)
            self.histogram.update(values[:, :: stride(values.shape[1])], max(-lo, hi))
        return lows, highs

    def merge(self, other: Observer) -> Observer:
        """Return the observer of the values of both."""
        return Observer(
            min(self.lo, other.lo),
            max(self.hi, other.hi),
            self.histogram.merge(other.histogram),
        )

    def clipped(self, bins: Callable[[NDArray[np.int64]], int]) -> Range:
        """Return what lies within (-T, T), T being as many bins of |x| as ``bins`` says to keep.

        Args:
            bins: Takes the counts of |x| in bins of equal width from 0, up to the last that is
                not empty.
        """
        if self.histogram.exponent is None:
            return Range(self.lo, self.hi)
        magnitudes = self.histogram.magnitudes
        used = int(np.flatnonzero(magnitudes)[-1]) + 1
        threshold = bins(magnitudes[:used]) * self.histogram.width
        return self.within(-threshold, threshold)

    def within(self, lo: float, hi: float) -> Range:
        """Return what of (smallest, largest) lies within (lo, hi)."""
        return Range(min(max(self.lo, lo), self.hi), max(min(self.hi, hi), self.lo))


def stride(size: int) -> int:
    """Return the distance of the values that are counted; 1 counts all.

    It has no divisor in common with the number of values: a lattice that met only some of a
    tensor's rows, columns or channels would be no sample of it.
    """
    found = max(1, size // VALUES_PER_IMAGE)
    while math.gcd(found, size) > 1:
        found += 1
    return found
