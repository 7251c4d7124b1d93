"""How much faster one file is than another, both run here in turn."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from ..core.values import Logits, Pixels

PAIRS: Final = 100
"""How many pairs of measurements make a ratio."""
# Of one measurement, whose median it is: what the scheduler takes from single runs is left out.
_RUNS: Final = 7
_MISSED: Final = 0.025


class Timed(Protocol):
    """What answers to pixels: a backend, or a loaded bundle."""

    def logits(self, pixels: Pixels, /) -> Logits:
        """Return (N, classes) for pixels (N, H, W, C)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """The time of one file as a part of another's.

    Attributes:
        value: The median over pairs of the time of the one by the time of the other.
        low: Of a 95 % interval of that median.
        high: Likewise.
        ms: The median time of the one, one image, one thread, on this machine.
        other_ms: Of the other.
    """

    value: float
    low: float
    high: float
    ms: float
    other_ms: float


def time_ratio(one: Timed, other: Timed, pixels: Pixels, pairs: int = PAIRS) -> Ratio:
    """Time two files side by side.

    They run in turn, each first as often, so that what else this machine does slows both alike, and
    each pair gives one ratio.

    Args:
        one: What is judged.
        other: What it is compared with.
        pixels: Images (N, H, W, C), uint8; each pair takes the next.
        pairs: How many.
    """
    return ratio_of(*time_in_turn((one, other), pixels, pairs))


def time_in_turn(
    files: Sequence[Timed], pixels: Pixels, rounds: int = PAIRS
) -> tuple[NDArray[np.float64], ...]:
    """Time files side by side, and return the seconds of each, shape (rounds,).

    Args:
        files: Each runs once in a round, each as often in every place.
        pixels: Images (N, H, W, C), uint8; each round takes the next.
        rounds: How many.
    """
    times = np.zeros((len(files), rounds))
    for turn in range(rounds):
        image = pixels[turn % len(pixels)][None]
        for place in range(len(files)):
            file = (turn + place + 1) % len(files)
            times[file, turn] = _measure(files[file], image)
    return tuple(times)


def ratio_of(one: NDArray[np.float64], other: NDArray[np.float64]) -> Ratio:
    """Return the time of one file as a part of another's, of what ``time_in_turn`` gave."""
    ratios = (one / other).tolist()
    low, high = median_interval(ratios)
    return Ratio(
        value=float(np.median(ratios)), low=low, high=high, ms=1e3 * float(np.median(one)),
        other_ms=1e3 * float(np.median(other)),
    )  # fmt: skip


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return an interval that holds the median of what was drawn from with 95 % or more.

    It is made of order statistics: right whatever the distribution is. With fewer than six values
    it is all that was seen.

    Source: Thompson, Ann. Math. Statist. 7 (1936) 122-128.
    """
    ordered, count = sorted(values), len(values)
    below, outside = 0.0, 0
    for rank in range(count // 2):
        below += math.comb(count, rank) / 2**count
        if below > _MISSED:
            break
        outside = rank + 1
    skipped = max(0, outside - 1)
    return ordered[skipped], ordered[count - 1 - skipped]


def _measure(backend: Timed, pixels: Pixels) -> float:
    """Return the median seconds of a few runs behind one that fills the caches again."""
    backend.logits(pixels)
    runs = []
    for _ in range(_RUNS):
        start = time.perf_counter()
        backend.logits(pixels)
        runs.append(time.perf_counter() - start)
    return median(runs)
