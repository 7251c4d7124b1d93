"""Is one measurement slower than another? The ratio of their medians, with an interval.

The runs of one process are no independent observations: a clock that changes, a busy neighbour
and where the memory came to lie hold for many runs at once. So each process counts as one
observation, the median of its runs, and what correlates within it does not matter. The interval is
Hodges and Lehmann's: the ratios of every process of the one to every process of the other, cut off
where the exact distribution of Mann and Whitney's U says. It assumes that the processes of a side
are alike and that the sides differ by a factor; nothing about how the times are distributed.

Sources: Hodges and Lehmann, Ann. Math. Statist. 34 (1963) 598-611; Mann and Whitney, ibid. 18
(1947) 50-60; why processes: Kalibera and Jones, ISMM 2013, "Rigorous benchmarking in reasonable
time".
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from statistics import median
from typing import Final, Literal

import msgspec
import numpy as np

from ...core.errors import BadInputError, UsageError
from .result import EMULATED, BenchResult

# Findings that say what computes; paths and packages of the workstation do not.
_MACHINE: Final = (
    "machine", "processor", "memory", "kernel", "governor", "highest clock", "jetson linux",
    "nvidia gpu", "numpy", "pillow",
)  # fmt: skip

_EXIT: Final = {"passed": 0, "failed": 1, "undecided": 5}


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """How many times as long the second takes as the first.

    Attributes:
        value: The median of the ratios of every process to every other.
        low: The interval's lower end; None where so few processes give none.
        high: Its upper end.
    """

    value: float
    low: float | None
    high: float | None


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two measurements of a bundle.

    Attributes:
        stage: What is judged.
        ratio: Of it.
        ratios: Of every stage, for information.
        max_loss: By how many percent the second may be slower.
        confidence: Of the interval, in percent.
        outcome: "passed" where the interval lies below the limit, "failed" where it lies above,
            "undecided" where it holds it, and where there is a doubt.
        differences: In what else than time the two differ.
        doubts: Why the figures themselves are doubtful.
    """

    stage: str
    ratio: Ratio
    ratios: dict[str, Ratio]
    max_loss: float
    confidence: float
    outcome: Literal["passed", "failed", "undecided"]
    differences: tuple[str, ...]
    doubts: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0, 1 or 5."""
        return _EXIT[self.outcome]


def compare(
    first: BenchResult,
    second: BenchResult,
    *,
    max_loss: float = 5.0,
    confidence: float = 95.0,
    stage: str = "total",
) -> Comparison:
    """Judge whether the second is slower than the first by more than a limit.

    Args:
        first: What was before.
        second: What is now.
        max_loss: In percent of the first's time.
        confidence: Of the two-sided interval, in percent; a verdict is wrong at most half as often
            as the interval.
        stage: Of ``BenchResult.stages``.

    Raises:
        BadInputError: They measured different things, or one is invalid or emulated.
        UsageError: A limit is out of range, or there is no such stage.
    """
    if not 0 <= max_loss < float("inf"):
        raise UsageError(f"expected a loss of 0 percent or more, found {max_loss:g}")
    if not 50 <= confidence < 100:
        raise UsageError(f"expected a confidence of 50 to below 100 percent, found {confidence:g}")
    _check(first, second)
    if stage not in first.stages or stage not in second.stages:
        raise UsageError(f"no stage {stage!r}; there are: {', '.join(first.stages)}")
    alpha = 1 - confidence / 100
    ratios = {
        name: ratio_interval(_medians(first, name), _medians(second, name), alpha)
        for name in first.stages
        if name in second.stages
    }
    found, limit = ratios[stage], 1 + max_loss / 100
    outcome: Literal["passed", "failed", "undecided"] = "undecided"
    # What other programs take changes from minute to minute: the processes of a side share it, and
    # the interval does not see it.
    doubts = tuple(
        f"the {which} was measured on a busy machine"
        for which, one in (("first", first), ("second", second))
        if one.busy
    )
    if not doubts and found.high is not None and found.high <= limit:
        outcome = "passed"
    elif not doubts and found.low is not None and found.low > limit:
        outcome = "failed"
    return Comparison(
        stage=stage, ratio=found, ratios=ratios, max_loss=max_loss, confidence=confidence,
        outcome=outcome, differences=tuple(_differences(first, second)),
        doubts=doubts,
    )  # fmt: skip


def ratio_interval(first: Sequence[float], second: Sequence[float], alpha: float) -> Ratio:
    """Return the ratio of ``second`` to ``first``, each a positive time per process.

    Args:
        first: Shape (M,).
        second: Shape (N,).
        alpha: 0..1, two-sided: the interval misses the true ratio at most this often.
    """
    ratios = np.sort((np.asarray(second)[:, None] / np.asarray(first)[None, :]).ravel())
    cut = interval_rank(len(first), len(second), alpha)
    return Ratio(
        value=float(np.median(ratios)),
        low=float(ratios[cut - 1]) if cut else None,
        high=float(ratios[-cut]) if cut else None,
    )


def interval_rank(m: int, n: int, alpha: float) -> int:
    """Return which of the sorted m * n ratios, from either end, is the interval's end.

    It is the largest k with P(U <= k - 1) <= alpha / 2, where U is Mann and Whitney's of samples
    of m and n from one continuous distribution; 0 where there is none.
    """
    counts = u_counts(m, n)
    total, below, rank = comb(m + n, n), 0, 0
    while rank < len(counts) and below + counts[rank] <= alpha / 2 * total:
        below += counts[rank]
        rank += 1
    return rank


def u_counts(m: int, n: int) -> list[int]:
    """Return in how many of the (m + n over n) orders U is 0, 1, ..., m * n.

    They are the coefficients of the Gaussian binomial: the product over i = 1..n of
    (1 - q^(m + i)) / (1 - q^i).
    """
    size = m * n + 1
    counts = [1] + [0] * (size - 1)
    for i in range(1, n + 1):
        for power in range(size - 1, m + i - 1, -1):
            counts[power] -= counts[power - m - i]
        for power in range(i, size):
            counts[power] += counts[power - i]
    return counts


def _medians(found: BenchResult, stage: str) -> list[float]:
    return [median(process.runs_ms[stage]) for process in found.processes]


def _check(first: BenchResult, second: BenchResult) -> None:
    for which, found in (("first", first), ("second", second)):
        if found.emulated:
            raise BadInputError(f"the {which} is {EMULATED}; measure on the board")
        if found.invalid:
            raise BadInputError(f"the {which} is invalid: {found.invalid[0]}; measure again")
    for name, meaning in (
        ("bundle_sha256", "bundle"), ("artefact", "file of the bundle"), ("precision", "precision"),
        ("batch", "batch"), ("images_sha256", "images"),
    ):  # fmt: skip
        one, other = getattr(first, name), getattr(second, name)
        if one != other:
            raise BadInputError(
                f"expected measurements of one {meaning}, found {str(one)[:12]} and "
                f"{str(other)[:12]}; measure both alike"
            )


def _differences(first: BenchResult, second: BenchResult) -> list[str]:
    there, here = (
        {finding.name: finding.detail for finding in found.machine if finding.name in _MACHINE}
        | {"backend": found.backend, "edgecls": found.edgecls}
        | {"threads": str(found.threads or "the runtime's choice")}
        | {f"backend's {key}": value for key, value in found.description.items()}
        for found in (first, second)
    )
    return [
        f"{name}: {there.get(name, 'not told')} / {here.get(name, 'not told')}"
        for name in dict.fromkeys([*there, *here])
        if there.get(name) != here.get(name)
    ]
