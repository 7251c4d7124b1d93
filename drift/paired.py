"""The drop between two models on the same images: an exact test, its bounds, McNemar's test.

Of n images, b lost their right answer and c gained one; the drop is p_b - p_c, observed (b - c) /
n. Outcomes are ordered by Tango's score statistic. Its normal approximation is too bold where few
answers change (no change in 270 images would "show" a drop below 1 point, which happens in 6.6 %
of all samples where the drop is just that), so the level is taken from the exact distribution of
(b, c) instead: the largest probability over all rates of changed answers that the data allow.

Sources: Tango, Statistics in Medicine 17 (1998) 891-908; Hsueh, Liu and Chen, Biometrics 57 (2001)
478-483 (exact unconditional test); Berger and Boos, JASA 89 (1994) 1012-1016 (the confidence set).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..core.errors import UsageError
from .proportion import exact_bounds, fewest_images

Reals = NDArray[np.float64]

# Spent on the confidence set of the rate of changed answers; part of every p-value.
_SET_LEVEL: Final = 1e-6
# Rates tried in that set, which is 10 standard errors wide: between two neighbours nothing happens.
_RATES: Final = 64
_STEPS: Final = 20
_ROUNDING: Final = 1e-9
_MOST_TRIES: Final = 1000


class Paired(NamedTuple):
    """Counts of images: with a right answer lost, with one gained, and all."""

    lost: int
    gained: int
    images: int

    @property
    def drop(self) -> float:
        """The observed drop as a fraction."""
        return (self.lost - self.gained) / self.images

    @property
    def swapped(self) -> Paired:
        """The same with the models' roles exchanged."""
        return Paired(self.gained, self.lost, self.images)


def score(lost: Reals, gained: Reals, images: int, drop: float) -> Reals:
    """Return Tango's statistic: (observed - ``drop``) in standard errors under that drop.

    Args:
        lost: Counts b, any shape.
        gained: Counts c, the same shape.
        images: n.
        drop: The hypothesis, a fraction in -1..1.
    """
    linear = -lost - gained + (2 * images - lost + gained) * drop
    constant = -gained * drop * (1 - drop)
    root = np.sqrt(np.maximum(linear**2 - 8 * images * constant, 0))
    # The restricted estimate of p_c, from the form of the root that does not cancel.
    with np.errstate(invalid="ignore", divide="ignore"):
        p_gained = np.where(
            linear > 0, -2 * constant / (root + linear), (root - linear) / (4 * images)
        )
        variance = images * (2 * p_gained + drop * (1 - drop))
        found = (lost - gained - images * drop) / np.sqrt(variance)
    return np.where(variance > 0, found, 0.0)


@lru_cache(maxsize=65536)
def p_below(counts: Paired, drop: float) -> float:
    """Return the p-value of "the true drop is ``drop`` or more" against "it is below".

    At most a share alpha of all samples has a p-value of alpha or less while the true drop is
    ``drop`` or more, whatever the rate of changed answers.

    Args:
        counts: What was observed.
        drop: A fraction in -1..1.
    """
    lost, gained, images = counts
    observed = float(score(np.float64(lost), np.float64(gained), images, drop))  # type: ignore[arg-type]
    low, high = exact_bounds(lost + gained, images, _SET_LEVEL / 2)
    low, high = (max(rate, abs(drop)) for rate in (low, high))
    rates = np.linspace(low, high, _RATES) if high > low else np.asarray([low])
    found = probability_at_most(observed, rates, drop, images, drop)
    return min(1.0, float(found.max()) + _SET_LEVEL)


def p_above(counts: Paired, drop: float) -> float:
    """Return the p-value of "the true drop is ``drop`` or less" against "it is above"."""
    return p_below(counts.swapped, -drop)


def probability_at_most(
    observed: float, rates: Reals, drop: float, images: int, hypothesis: float
) -> Reals:
    """Return the probability of a score of ``observed`` or less, for each rate of changed answers.

    Args:
        observed: A score.
        rates: p_b + p_c, shape (R,), each at least |``drop``|.
        drop: The true p_b - p_c.
        images: n.
        hypothesis: The drop that the score is computed for.
    """
    from scipy.special import bdtr, gammaln, xlog1py, xlogy

    low, high = _bulk(float(rates.min()), float(rates.max()), images)
    changed = np.arange(low, high + 1, dtype=np.float64)
    most = most_lost(observed, changed, images, hypothesis)
    ways = gammaln(images + 1) - gammaln(changed + 1) - gammaln(images - changed + 1)
    rate = rates[:, None]
    weights = np.exp(ways + xlogy(changed, rate) + xlog1py(images - changed, -rate))
    share = np.clip(np.divide(1 + drop / np.maximum(rate, 1e-300), 2), 0, 1)
    below = np.where(most < 0, 0.0, bdtr(np.maximum(most, 0), changed.astype(np.int64), share))
    return np.asarray((weights * below).sum(1), np.float64)


def most_lost(observed: float, changed: Reals, images: int, hypothesis: float) -> Reals:
    """Return, per number of changed answers, the most losses with a score of at most ``observed``.

    Returns:
        Shape of ``changed``; -1 where even no loss scores above it.
    """
    low, high = np.full_like(changed, -1.0), changed.copy()
    while np.any(low < high):
        middle = np.ceil((low + high) / 2)
        at_most = score(middle, changed - middle, images, hypothesis) <= observed + _ROUNDING
        low, high = np.where(at_most, middle, low), np.where(at_most, high, middle - 1)
    return low


def upper_bound(counts: Paired, alpha: float, budget: float) -> float:
    """Return the drop below which the true one lies with confidence 1 - ``alpha``.

    It is below ``budget`` exactly where ``p_below(counts, budget) <= alpha``.

    Args:
        counts: What was observed.
        alpha: 0..1, one-sided.
        budget: A fraction; the search stays on its side.
    """
    proved = p_below(counts, budget) <= alpha
    low, high = (min(counts.drop, budget), budget) if proved else (max(counts.drop, budget), 1.0)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if p_below(counts, middle) <= alpha:
            high = middle
        else:
            low = middle
    return high


def lower_bound(counts: Paired, alpha: float, budget: float) -> float:
    """Return the drop above which the true one lies with confidence 1 - ``alpha``."""
    return -upper_bound(counts.swapped, alpha, -budget)


def fewest_unchanged(budget: float, alpha: float) -> int:
    """Return the fewest images that show a drop below ``budget`` where no answer changed.

    Args:
        budget: A fraction, above 0 and below 1.
        alpha: 0..1, one-sided.

    Raises:
        UsageError: No number of images shows it.
    """
    if 0 < budget < 1 and alpha > _SET_LEVEL:
        # Fewer cannot do: the p-value is this probability and the set's level, or more.
        start = fewest_images(budget, alpha - _SET_LEVEL)
        for images in range(start, start + _MOST_TRIES):
            if p_below(Paired(0, 0, images), budget) <= alpha:
                return images
    raise UsageError(
        f"no number of images shows a drop below {100 * budget:g} points at a level of "
        f"{alpha:.2g}; give another budget, or a lower --confidence"
    )


def mcnemar(counts: Paired) -> float:
    """Return the exact two-sided p-value of "as many answers are lost as are gained".

    It asks whether anything changed, not whether the change stays within a budget: no verdict is
    taken from it. Source: McNemar, Psychometrika 12 (1947) 153-157.
    """
    from scipy.special import bdtr

    changed = counts.lost + counts.gained
    return min(1.0, 2 * float(bdtr(min(counts.lost, counts.gained), changed, 0.5)))


def _bulk(low: float, high: float, images: int) -> tuple[int, int]:
    """Return a range of binomial counts that leaves out less than 1e-9 on either side."""
    least, most = images * low, images * high
    return (
        max(0, int(least - 7 * least**0.5 - 1)),
        min(images, int(most + 7 * most**0.5 + 25)),
    )
