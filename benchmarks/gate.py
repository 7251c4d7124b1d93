"""How often the gate errs, and whether the planned number of images decides, by simulation.

    python benchmarks/gate.py [RUNS]

Each row draws RUNS (10,000) data sets in which the true drop is exactly the budget, where a wrong
verdict is likeliest, and counts the verdicts. "Tango's interval" judges the same data sets by the
normal approximation of the same statistic; "point estimate" passes where the measured drop is
within the budget.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from common import machine, table
from numpy.typing import NDArray

from edgecls.drift.answers import CONFIDENCE_ONE
from edgecls.drift.paired import Paired, p_above, p_below, score
from edgecls.drift.planning import images_for_drop
from edgecls.drift.reliability import BINS, Reliability, ReliabilityCounts

ALPHA = 0.05
Z = 1.6448536269514722
SEED = 20261122
# (images, share of images whose right answer is lost or gained, budget), fractions.
CASES = (
    (100, 0.02, 0.02), (270, 0.01, 0.01), (400, 0.015, 0.01), (400, 0.03, 0.01), (400, 0.10, 0.01),
    (1000, 0.012, 0.01), (1000, 0.03, 0.01), (2000, 0.02, 0.005), (5000, 0.015, 0.01),
    (10_000, 0.02, 0.01),
)  # fmt: skip
# (budget, share of changed answers, true drop).
PLANS = (
    (0.01, 0.015, 0.0), (0.01, 0.03, 0.0), (0.01, 0.03, 0.0025), (0.005, 0.015, 0.0),
    (0.005, 0.015, 0.0025), (0.02, 0.05, 0.005),
)  # fmt: skip
# (images, by how much the candidate is surer, share of changed answers).
RISES = ((400, 0.02, 0.02), (400, -0.05, 0.01), (2000, 0.02, 0.02), (2000, 0.0, 0.05),
         (10_000, 0.02, 0.02))  # fmt: skip

Counts = NDArray[np.int64]


def main() -> None:
    """Print three tables."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    print(f"{machine()}; {runs} runs a row, confidence 95 %, seed {SEED}\n")
    print("## Wrong verdicts where the true drop is the budget, percent of runs\n")
    print(table(
        ("images, changed answers, budget", "passed", "failed", "Tango's interval: passed",
         "failed", "point estimate: passed"),
        [errors(*case, runs) for case in CASES],
    ))  # fmt: skip
    print("\n## Passed at the planned number of images, percent of runs; planned for 80\n")
    print(table(("budget, changed answers, true drop", "images", "passed"),
                [power(*case, runs) for case in PLANS]))  # fmt: skip
    rises = max(100, runs // 50)
    print(f"\n## Bounds of the rise of the ECE that miss the true rise, percent of {rises} runs\n")
    print(table(("images, surer by, changed answers", "true rise", "upper bound", "lower bound",
                 "bootstrap's upper bound"), [rise(*case, rises) for case in RISES]))  # fmt: skip


def samples(images: int, discordance: float, drop: float, runs: int) -> tuple[list[Paired], Counts]:
    """Return the different outcomes of ``runs`` data sets, and how often each came."""
    cells = [(discordance + drop) / 2, (discordance - drop) / 2, 1 - discordance]
    drawn = np.random.default_rng(SEED).multinomial(images, cells, size=runs)
    found, counts = np.unique(drawn, axis=0, return_counts=True)
    return [Paired(int(b), int(c), images) for b, c, _ in found], counts


def errors(images: int, discordance: float, budget: float, runs: int) -> list[str]:
    """Return a row of wrong verdicts."""
    outcomes, counts = samples(images, discordance, budget, runs)

    def share(wrong: Callable[[Paired], bool]) -> str:
        return f"{100 * float(counts @ np.asarray([wrong(o) for o in outcomes])) / runs:.2f}"

    def tango(outcome: Paired) -> float:
        lost, gained = np.asarray(float(outcome.lost)), np.asarray(float(outcome.gained))
        return float(score(lost, gained, images, budget))

    return [
        f"{images:,}, {100 * discordance:g} %, {100 * budget:g}",
        share(lambda o: p_below(o, budget) <= ALPHA),
        share(lambda o: p_above(o, budget) <= ALPHA),
        share(lambda o: tango(o) <= -Z),
        share(lambda o: tango(o) >= Z),
        share(lambda o: o.drop <= budget + 1e-12),
    ]


def power(budget: float, discordance: float, drop: float, runs: int) -> list[str]:
    """Return a row of right verdicts."""
    images = images_for_drop(budget, alpha=ALPHA, discordance=discordance, drop=drop)
    assert images is not None
    outcomes, counts = samples(images, discordance, drop, runs)
    passed = counts @ np.asarray([p_below(o, budget) <= ALPHA for o in outcomes])
    name = f"{100 * budget:g}, {100 * discordance:g} %, {100 * drop:g}"
    return [name, f"{images:,}", f"{100 * float(passed) / runs:.1f}"]


def rise(images: int, surer: float, changed: float, runs: int) -> list[str]:
    """Return a row of bounds that missed."""
    random = np.random.default_rng(SEED)
    true = reliability(random, 2_000_000, surer, changed)[0].rise
    upper = lower = bootstrap = 0
    for _ in range(runs):
        found, gaps = reliability(random, images, surer, changed)
        upper += found.upper_bound(ALPHA) < true
        lower += found.lower_bound(ALPHA) > true
        bootstrap += bootstrapped(random, gaps) < true
    name = f"{images:,}, {100 * surer:g} points, {100 * changed:g} %"
    missed = [f"{100 * count / runs:.1f}" for count in (upper, lower, bootstrap)]
    return [name, f"{100 * true:.2f} points", *missed]


def reliability(
    random: np.random.Generator, images: int, surer: float, changed: float
) -> tuple[Reliability, NDArray[np.float64]]:
    """Return a calibrated model beside one that is surer, and the gaps of each image by bin."""
    confidence = random.beta(4, 1, images)
    right = random.random(images) < confidence
    other = np.clip(confidence + surer, 0.01, 0.99999)
    flipped = random.random(images) < changed
    now = np.where(flipped, random.random(images) < 0.5, right)
    units = [np.round(values * CONFIDENCE_ONE).astype(np.int64) for values in (confidence, other)]
    counts = ReliabilityCounts()
    counts.add((units[0], right), (units[1], now))
    gaps = np.zeros((images, 2 * BINS)) if images < 100_000 else np.zeros((0, 0))
    if gaps.size:
        for start, values, answers in ((0, units[1], now), (BINS, units[0], right)):
            place = np.minimum(values * BINS // CONFIDENCE_ONE, BINS - 1)
            gaps[np.arange(images), start + place] = values / CONFIDENCE_ONE - answers
    return counts.result(), gaps


def bootstrapped(random: np.random.Generator, gaps: NDArray[np.float64]) -> float:
    """Return the upper percentile bound of a plain paired bootstrap, 200 resamples."""
    images = len(gaps)
    weights = random.multinomial(images, np.full(images, 1 / images), size=200)
    means = np.abs(weights @ gaps / images)
    return float(np.quantile(means[:, :BINS].sum(1) - means[:, BINS:].sum(1), 1 - ALPHA))


if __name__ == "__main__":
    main()
