"""Intervals of the difference between two models on the same images.

Sources: of shares, the exact test of ``paired``; of functions of means, the BCa bootstrap over
images (Efron, JASA 82 (1987) 171-185).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from .paired import Paired, lower_bound, upper_bound

Reals = NDArray[np.float64]

Statistic = Callable[[Reals], Reals]
"""Takes means over images, shape (..., columns); returns shape (..., statistics)."""

RESAMPLES: Final = 9999
# Of numbers that are drawn at once: bounds the memory.
_DRAWN: Final = 4_000_000


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """A difference, and between which two the true one lies."""

    difference: float
    low: float
    high: float

    @property
    def side(self) -> Literal["above", "below", "level"]:
        """On which side of 0 it lies; "level" where it holds 0, so that neither is shown."""
        if self.low > 0:
            return "above"
        return "below" if self.high < 0 else "level"


def share_interval(ours: NDArray[np.bool_], theirs: NDArray[np.bool_], alpha: float) -> Interval:
    """Return the interval of (share of ``ours``) - (share of ``theirs``).

    Args:
        ours: Whether each image has a property under one model, shape (N,).
        theirs: Under the other, for the same images.
        alpha: 0..1, two-sided: the true difference lies outside at most this often.
    """
    counts = Paired(int((theirs & ~ours).sum()), int((ours & ~theirs).sum()), len(ours))
    return Interval(
        difference=0.0 - counts.drop,
        low=-upper_bound(counts, alpha / 2, 0.0),
        high=-lower_bound(counts, alpha / 2, 0.0),
    )


def bootstrap_intervals(
    values: Reals, statistic: Statistic, *, alpha: float, seed: int
) -> list[Interval]:
    """Return the BCa interval of each statistic, all from the same resamples of the images.

    Args:
        values: What each image contributes, shape (N, columns), finite; N >= 2.
        statistic: Of the columns' means.
        alpha: 0..1, two-sided.
        seed: Of the resamples.

    Returns:
        One for each statistic. Where no resample differs from the whole, both ends are the
        difference itself; where some are infinite and the whole is not, so are the ends.
    """
    from scipy.special import ndtr, ndtri

    images = len(values)
    whole = statistic(values.mean(0))
    drawn = statistic(_resampled_means(values, seed))
    left_out = statistic((values.sum(0) - values) / (images - 1))
    found = []
    for index, difference in enumerate(whole.tolist()):
        one, jackknife = drawn[:, index], left_out[:, index]
        if not np.isfinite(difference) or (one == difference).all():
            found.append(Interval(difference=difference, low=difference, high=difference))
            continue
        if not (np.isfinite(one).all() and np.isfinite(jackknife).all()):
            # A ratio whose denominator hangs on a single image or two: nothing is known.
            found.append(Interval(difference=difference, low=-np.inf, high=np.inf))
            continue
        # Half of the ties count as below: a statistic with few values is not biased by them.
        below = ((one < difference).sum() + 0.5 * (one == difference).sum()) / len(one)
        shift = ndtri(np.clip(below, 1 / len(one), 1 - 1 / len(one)))
        away = jackknife.mean() - jackknife
        spread = float((away**2).sum())
        skew = float((away**3).sum()) / (6 * spread**1.5) if spread else 0.0
        z = shift + ndtri(np.array([alpha / 2, 1 - alpha / 2]))
        low, high = np.quantile(one, ndtr(shift + z / (1 - skew * z)))
        found.append(Interval(difference=difference, low=float(low), high=float(high)))
    return found


def _resampled_means(values: Reals, seed: int) -> Reals:
    """Return the columns' means over images drawn with replacement, shape (resamples, columns)."""
    generator = np.random.default_rng(seed)
    images = len(values)
    parts, left = [], RESAMPLES
    while left:
        count = min(left, max(1, _DRAWN // images))
        times = generator.multinomial(images, np.full(images, 1 / images), size=count)
        parts.append(times.astype(np.float64) @ values / images)
        left -= count
    return np.concatenate(parts)
