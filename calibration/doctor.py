"""Whether a set of images is enough to calibrate with, from each image's extremes.

All measures are on the width of a tensor's min-max range with zero included, which is what a scale
is made of.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

SUBSETS: Final = 8
# In doublings: further than 32 times as many images nothing is foretold.
_FURTHEST: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Extremes:
    """Each image's smallest and largest value of each tensor.

    Attributes:
        images: What the rows are, in an order that does not depend on how they were seen.
        lo: Shape (images, tensors), at most 0: zero is always in a range.
        hi: Likewise, at least 0.
    """

    images: tuple[str, ...]
    lo: NDArray[np.float64]
    hi: NDArray[np.float64]


def widths_without(extremes: Extremes) -> NDArray[np.float64]:
    """Return by what share each tensor's range would shrink without each image.

    Returns:
        Shape (images, tensors), 0..1; not 0 only for the images that hold an end of a range.
    """
    full = extremes.hi.max(axis=0) - extremes.lo.min(axis=0)
    shrunk = _shrinkage(extremes.hi) + _shrinkage(-extremes.lo)
    shares: NDArray[np.float64] = np.divide(shrunk, full, out=np.zeros_like(shrunk), where=full > 0)
    return shares


def _shrinkage(ends: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far the largest of each column falls when a row is left out."""
    shrunk = np.zeros_like(ends)
    if len(ends) > 1:
        in_order = np.sort(ends, axis=0)
        columns = np.arange(ends.shape[1])
        shrunk[ends.argmax(axis=0), columns] = in_order[-1] - in_order[-2]
    return shrunk


@dataclass(frozen=True, slots=True, kw_only=True)
class Convergence:
    """How ranges still grow with the number of images.

    Attributes:
        growth: By what share of its width a range is expected to have grown with the second half
            of the images, the mean over the tensors.
        enough: About how many images bring that below the limit; the number there is where it is
            below, None where growth does not slow down in sight.
    """

    growth: float
    enough: int | None


def convergence(extremes: Extremes, limit: float) -> Convergence:
    """Return how far the ranges have converged.

    What a random half and quarter of the images would have given is computed exactly, as the
    expectation over all of them; nothing is drawn. Each doubling is assumed to bring down the
    growth by the factor by which the last one did.
    """
    count = len(extremes.images)
    widths = [expected_widths(extremes, size) for size in (count // 4, count // 2, count)]
    earlier, last = (
        float(np.mean(1 - np.divide(less, more, out=np.ones_like(more), where=more > 0)))
        for less, more in itertools.pairwise(widths)
    )
    if last <= limit:
        return Convergence(growth=last, enough=count)
    ratio = last / earlier if earlier > 0 else 1.0
    doublings = math.log(limit / last) / math.log(ratio) if ratio < 1.0 else math.inf
    if doublings > _FURTHEST:
        return Convergence(growth=last, enough=None)
    return Convergence(growth=last, enough=math.ceil(count * 2**doublings))


def expected_widths(extremes: Extremes, size: int) -> NDArray[np.float64]:
    """Return each tensor's expected range width over ``size`` images drawn without replacement.

    The k-th smallest of n values is the largest of m drawn with probability C(k-1, m-1) / C(n, m).

    Args:
        extremes: Of n images.
        size: m, 1 or more.
    """
    count, size = len(extremes.images), max(size, 1)
    rank = np.arange(size, count + 1)
    logs = _log_choose(rank - 1, size - 1) - _log_choose(np.array([count]), size)
    weights = np.concatenate([np.zeros(size - 1), np.exp(logs)])
    found: NDArray[np.float64] = weights @ np.sort(extremes.hi, axis=0) + weights @ np.sort(
        -extremes.lo, axis=0
    )
    return found


def _log_choose(n: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    return np.array(
        [math.lgamma(i + 1) - math.lgamma(k + 1) - math.lgamma(i - k + 1) for i in n.tolist()]
    )


def seed_spread(extremes: Extremes, seed: int) -> NDArray[np.float64]:
    """Return how far each tensor's width varies over seeded halves of the images.

    Returns:
        Shape (tensors,): largest / smallest width - 1 over ``SUBSETS`` halves.
    """
    generator = np.random.default_rng(seed)
    count = len(extremes.images)
    halves = [generator.permutation(count)[: max(1, count // 2)] for _ in range(SUBSETS)]
    widths = np.array([extremes.hi[h].max(axis=0) - extremes.lo[h].min(axis=0) for h in halves])
    smallest, largest = widths.min(axis=0), widths.max(axis=0)
    spread = np.divide(largest, smallest, out=np.ones_like(largest), where=smallest > 0) - 1
    return np.where((smallest == 0) & (largest > 0), np.inf, spread)
