"""How many images a verdict needs, at a stated rate of changed answers and a stated true drop."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Final

import msgspec
import numpy as np

from ..core.errors import UsageError
from .budgets import Budgets, Measure
from .paired import fewest_unchanged, probability_at_most
from .proportion import exact_bounds, fewest_images

POWER: Final = 0.8
# More images than any data set has: the answer is "no number will do".
MOST_IMAGES: Final = 10_000_000

_GROWTH: Final = 1.02
_SET_LEVEL: Final = 1e-6
_RATES: Final = 32
_HALVINGS: Final = 18
# From so many changed answers on the approximation is as good, and the exact sum slow.
_MANY: Final = 400


@lru_cache(maxsize=256)
def images_for_drop(
    budget: float, *, alpha: float, discordance: float, drop: float, power: float = POWER
) -> int | None:
    """Return how many images show that the drop is below ``budget``, with probability ``power``.

    Args:
        budget: A fraction in -1..1.
        alpha: Of the test, one-sided.
        discordance: The true share of images whose right answer is lost or gained.
        drop: The true drop, a fraction; at most ``discordance``, either way.
        power: The probability that is wanted.

    Returns:
        About 2 % more at most than the fewest; None where no number will do, because ``drop`` is
        not below ``budget`` or ``alpha`` not above what the exact test spends on its confidence
        set, or more than ``MOST_IMAGES`` would be needed.
    """
    if drop >= budget or alpha <= _SET_LEVEL:
        return None
    start = _approximate(budget, alpha, discordance, drop, power)
    if start > MOST_IMAGES:
        return None
    if start * discordance > _MANY:
        return start
    fewest = fewest_unchanged(budget, alpha) if budget > 0 else 1
    return _search(
        max(start, fewest),
        fewest,
        power,
        lambda n: power_of_drop(n, budget, alpha, discordance, drop),
    )


def power_of_drop(
    images: int, budget: float, alpha: float, discordance: float, drop: float
) -> float:
    """Return the probability that ``images`` images show a drop below ``budget``.

    Computed from the exact distribution, with the critical score of the rates of changed answers
    that such a sample leaves possible.
    """
    changed = round(discordance * images)
    low, high = exact_bounds(changed, images, _SET_LEVEL / 2)
    rates = np.linspace(max(low, abs(budget)), max(high, abs(budget)), _RATES)

    def size(critical: float) -> float:
        return float(probability_at_most(critical, rates, budget, images, budget).max())

    least, most = -12.0, 0.0
    for _ in range(_HALVINGS):
        middle = (least + most) / 2
        if size(middle) <= alpha - _SET_LEVEL:
            least = middle
        else:
            most = middle
    rate = np.asarray([max(discordance, abs(drop))])
    return float(probability_at_most(least, rate, drop, images, budget)[0])


@lru_cache(maxsize=256)
def images_for_share(
    limit: float, *, alpha: float, share: float, power: float = POWER
) -> int | None:
    """Return how many images show that a share is above ``limit``, with probability ``power``.

    Args:
        limit: A fraction in 0..1.
        alpha: Of the test, one-sided.
        share: The true share, a fraction.
        power: The probability that is wanted.

    Returns:
        As ``images_for_drop``.
    """
    from scipy.special import ndtri

    if share <= limit:
        return None
    deviation = float(
        ndtri(1 - alpha) * math.sqrt(limit * (1 - limit))
        + ndtri(power) * math.sqrt(share * (1 - share))
    )
    fewest = fewest_images(1 - limit, alpha)
    start = max(fewest, math.ceil((deviation / (share - limit)) ** 2))
    return _search(start, fewest, power, lambda n: _power_of_share(n, limit, alpha, share))


def _power_of_share(images: int, limit: float, alpha: float, share: float) -> float:
    from scipy.special import bdtrc, bdtrik

    # The fewest successes whose probability under the limit is alpha or less.
    critical = int(bdtrik(1 - alpha, images, limit))
    while critical > 0 and bdtrc(critical - 1, images, limit) <= alpha:
        critical -= 1
    while critical <= images and bdtrc(critical - 1, images, limit) > alpha:
        critical += 1
    return float(bdtrc(critical - 1, images, share)) if critical <= images else 0.0


def _approximate(budget: float, alpha: float, discordance: float, drop: float, power: float) -> int:
    """Return the images needed by the normal approximation. Source: Nam, Biometrics 53 (1997)."""
    from scipy.special import ndtri

    gained = (discordance - drop) / 2
    linear = -discordance + (2 - drop) * budget
    constant = -gained * budget * (1 - budget)
    restricted = (math.sqrt(max(0.0, linear**2 - 8 * constant)) - linear) / 4
    under_budget = max(0.0, 2 * restricted + budget * (1 - budget))
    deviation = float(
        ndtri(1 - alpha) * math.sqrt(under_budget)
        + ndtri(power) * math.sqrt(max(0.0, discordance - drop**2))
    )
    gap = budget - drop
    # The drop moves in steps of one image: half a step on either side.
    return math.ceil(min((deviation / gap) ** 2 + 1 / gap, 2.0 * MOST_IMAGES))


def _search(start: int, fewest: int, power: float, power_of: Callable[[int], float]) -> int | None:
    """Return the first of geometrically growing numbers of images that has the power."""
    if start > MOST_IMAGES:
        return None
    images = start
    while images > fewest and power_of(images) >= power:
        images = max(fewest, int(images / _GROWTH))
    while power_of(images) < power:
        images = math.ceil(images * _GROWTH)
        if images > MOST_IMAGES:
            return None
    return images


class Planned(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many images decide a check.

    Attributes:
        measure: As in a verdict's check.
        limit: The budget.
        images: In all; of a class check in each class; None where no number will do.
    """

    measure: Measure
    limit: float
    images: int | None


def plan(budgets: Budgets, *, discordance: float, true_drop: float) -> tuple[Planned, ...]:
    """Return the images with which each check passes with probability ``POWER``.

    Args:
        budgets: The limits; a rise of the ECE is not planned, its spread depends on the model.
        discordance: Images whose right answer is lost or gained, percent; for the agreement, images
            that change their answer.
        true_drop: The drop that the conversion really costs, percentage points.

    Raises:
        UsageError: A number is out of range.
    """
    budgets = budgets.checked(has_truth=True)
    if not 0 <= discordance <= 100:
        raise UsageError(f"--discordance must lie in 0..100 percent, found {discordance:g}")
    if not abs(true_drop) <= discordance:
        raise UsageError(
            f"a true drop of {true_drop:g} points needs at least as many changed answers; "
            f"give --discordance {abs(true_drop):g} or more"
        )
    drops: dict[Measure, float | None] = {
        "top1_drop": budgets.max_drop,
        "top5_drop": budgets.max_top5_drop,
        "class_drop": budgets.max_class_drop,
    }
    rows = []
    for measure, limit in drops.items():
        if limit is not None:
            images = images_for_drop(
                limit / 100, alpha=budgets.alpha, discordance=discordance / 100,
                drop=true_drop / 100,
            )  # fmt: skip
            rows.append(Planned(measure=measure, limit=limit, images=images))
    if budgets.min_agreement is not None:
        images = images_for_share(
            budgets.min_agreement / 100, alpha=budgets.alpha, share=1 - discordance / 100
        )
        rows.append(Planned(measure="agreement", limit=budgets.min_agreement, images=images))
    return tuple(rows)
