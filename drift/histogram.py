"""A distribution in bounded memory: counts in fixed bins, so that merging is adding."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

# Eight bins for each power of two: a quantile is at most 1/8 too large, never too small.
_PER_OCTAVE: Final = 8
_LOWEST: Final = -31
_HIGHEST: Final = 32
_BINS: Final = 1 + _PER_OCTAVE * (_HIGHEST - _LOWEST + 1)


class Bin(msgspec.Struct, frozen=True, array_like=True):
    """How many magnitudes lie at ``upper`` or below, and above the bin before."""

    upper: float
    count: int


class Distribution(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A histogram's bins that are not empty, in rising order; zero has a bin of its own."""

    bins: tuple[Bin, ...]

    def quantile(self, share: float) -> float:
        """Return the upper edge of the bin that holds the ``share`` quantile, 0..1."""
        total = sum(entry.count for entry in self.bins)
        seen = 0
        for entry in self.bins:
            seen += entry.count
            if seen >= share * total:
                return entry.upper
        return self.bins[-1].upper if self.bins else 0.0


@dataclass(slots=True)
class Histogram:
    """Counts magnitudes; 4 kB whatever their number."""

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_BINS, np.int64))

    def add(self, values: NDArray[np.float64]) -> None:
        """Count finite values of 0 or more, any shape; outside 2**-32..2**32 they are clipped."""
        flat = values.ravel()
        mantissa, exponent = np.frexp(flat)  # value = mantissa * 2**exponent, mantissa in 0.5..1
        # Bins are open below and closed above: a value on an edge counts as not above it.
        step = np.ceil((mantissa - 0.5) * (2 * _PER_OCTAVE)).astype(np.int64)
        octave = exponent.astype(np.int64) - _LOWEST
        index = np.clip(octave * _PER_OCTAVE + step, 1, _BINS - 1)
        self.counts += np.bincount(np.where(flat == 0, 0, index), minlength=_BINS)

    def merge(self, other: Histogram) -> None:
        """Take all that ``other`` has counted."""
        self.counts += other.counts

    def result(self) -> Distribution:
        """Return the bins that are not empty."""
        return Distribution(
            bins=tuple(
                Bin(_upper(int(index)), int(self.counts[index]))
                for index in np.flatnonzero(self.counts)
            )
        )


def _upper(index: int) -> float:
    if index == 0:
        return 0.0
    octave, step = divmod(index, _PER_OCTAVE)
    return float(np.ldexp(0.5 + step / (2 * _PER_OCTAVE), octave + _LOWEST))
