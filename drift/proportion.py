"""Bounds and an interval for one proportion, such as the share of equal answers."""

from __future__ import annotations

import math


def exact_bounds(successes: int, trials: int, alpha: float) -> tuple[float, float]:
    """Return the one-sided bounds of a proportion, each with confidence 1 - ``alpha`` at least.

    A budget is judged by these: Wilson's interval is right on average over many proportions, but
    one of its sides can miss its level several times over where the proportion is near 1.

    Source: Clopper and Pearson, Biometrika 26 (1934) 404-413.
    """
    from scipy.special import betaincinv

    low = betaincinv(successes, trials - successes + 1, alpha) if successes else 0.0
    high = betaincinv(successes + 1, trials - successes, 1 - alpha) if successes < trials else 1.0
    return float(low), float(high)


def wilson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the two-sided score interval of a proportion, which describes and judges nothing.

    Source: Wilson, JASA 22 (1927) 209-212; recommended by Newcombe, Statistics in Medicine 17
    (1998) 857-872.
    """
    from scipy.special import ndtri

    z = float(ndtri((1 + confidence) / 2))
    centre = successes + z * z / 2
    spread = z * math.sqrt(successes * (trials - successes) / trials + z * z / 4)
    total = trials + z * z
    return max(0.0, (centre - spread) / total), min(1.0, (centre + spread) / total)


def fewest_images(budget: float, alpha: float) -> int:
    """Return the fewest images on which a share below ``budget`` can be shown at all.

    So many must be seen unchanged: had a share ``budget`` of all images changed, this many would
    show none of them with probability ``alpha`` or less.

    Args:
        budget: A fraction above 0.
        alpha: 0..1, one-sided.
    """
    return max(1, math.ceil(math.log(alpha) / math.log1p(-budget))) if budget < 1 else 1
