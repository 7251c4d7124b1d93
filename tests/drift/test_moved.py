"""Distances against their definitions, and the margins against simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import kstwobign, wasserstein_distance

from edgecls.drift.moved import Chance, Measure, images_for

ORDER, SETS, RUNS = (Measure(distance=name) for name in ("order", "sets", "runs"))


def shares(seed: int, bins: int = 7) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.dirichlet(np.ones(bins)), random.dirichlet(np.ones(bins))


@pytest.mark.parametrize("seed", range(20))
def test_distances_are_the_largest_differences_of_shares(seed: int) -> None:
    p, q = shares(seed)
    bins = range(len(p))
    every = [s for size in range(len(p) + 1) for s in itertools.combinations(bins, size)]
    wanted = {
        ORDER: max(abs((p - q)[:end].sum()) for end in range(1, len(p) + 1)),
        SETS: max(abs((p - q)[list(chosen)].sum()) for chosen in every),
        RUNS: max(abs((p - q)[start:end].sum()) for start in bins for end in range(start, len(p))),
    }

    for measure, value in wanted.items():
        assert measure.between(p, q) == pytest.approx(value)
        assert measure.between(q, p) == pytest.approx(value)
        assert measure.between(p, p) == 0
        # Shares that change by these move the distance to the other by no more.
        assert abs(measure.between(p, p) - measure.between(p, q)) <= (
            measure.deviation(np.zeros_like(p), q - p) + 1e-12
        )


@pytest.mark.parametrize("seed", range(20))
def test_slack_forgives_a_move_by_so_many_bins(seed: int) -> None:
    """Images that each move by a bin at most are at distance 0; by definition the rest is not."""
    random = np.random.default_rng(seed)
    forgiving = Measure(distance="order", slack=1)
    bins = random.integers(0, 20, 400)
    moved = np.clip(bins + random.integers(-1, 2, 400), 0, 19)
    p, q = (np.bincount(found, minlength=20) / 400 for found in (bins, moved))

    assert forgiving.between(p, q) == 0
    far, near = (np.bincount([at], minlength=20) / 1.0 for at in (3, 5))
    assert forgiving.between(far, near) == 1
    a, b = shares(seed, 20)
    first, second = a.cumsum(), b.cumsum()
    wanted = max(
        max(one[at] - two[min(at + 1, 19)] for at in range(20))
        for one, two in ((first, second), (second, first))
    )
    assert forgiving.between(a, b) == pytest.approx(max(wanted, 0))


def test_margin_is_kolmogorovs_quantile() -> None:
    """Of many bins that are equally likely, against the limit distribution."""
    even = np.full(2000, 1 / 2000)
    chance = Chance(ORDER, even, 2000, even, 3000)

    for alpha in (0.05, 0.01):
        wanted = kstwobign.isf(alpha) * math.sqrt(1 / 2000 + 1 / 3000)
        assert chance.margin(alpha) == pytest.approx(wanted, rel=0.05)


def test_margin_of_two_bins_is_the_normal_distributions() -> None:
    half = np.array([0.5, 0.5])

    found = Chance(SETS, half, 4000, half, 4000).margin(0.05)

    assert found == pytest.approx(1.96 * math.sqrt(0.25 / 4000 * 2), rel=0.05)


def test_margin_grows_with_certainty_also_beyond_the_draws() -> None:
    p, q = shares(1)
    chance = Chance(SETS, p, 100, q, 300)
    margins = [chance.margin(alpha) for alpha in (0.2, 0.05, 0.01, 2e-3, 1e-3, 1e-5, 1e-9)]

    assert margins == sorted(margins)
    assert Chance(SETS, p, 100, q, 300).margin(0.05) == margins[1]


def test_images_that_are_needed_bring_the_margin_down() -> None:
    even = np.full(10, 0.1)
    margin = Chance(SETS, even, 500, even, 500).margin(0.05)

    field, _ = images_for(margin, 500, 500, 0.8 * margin)

    assert field is not None
    assert Chance(SETS, even, 500, even, field).margin(0.05) == pytest.approx(0.8 * margin, rel=0.1)
    none, both = images_for(margin, 500, 500, 0.5 * margin)
    assert none is None
    assert both == 2000
    assert Chance(SETS, even, both, even, both).margin(0.05) == pytest.approx(margin / 2, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("measure", [ORDER, SETS, RUNS, Measure(distance="order", slack=1)])
@pytest.mark.parametrize("moved", [False, True])
def test_margins_cover_as_often_as_they_say(measure: Measure, moved: bool) -> None:
    """The measured distance leaves the true one by more than the margin in 10 % at most."""
    random = np.random.default_rng(5)
    p = random.dirichlet(np.full(12, 0.7))
    q = random.dirichlet(np.full(12, 0.7)) if moved else p
    truth, missed, trials = float(measure.between(p, q)), 0, 200
    for _ in range(trials):
        one = random.multinomial(120, p) / 120
        other = random.multinomial(400, q) / 400
        margin = Chance(measure, one, 120, other, 400).margin(0.1)
        missed += abs(float(measure.between(one, other)) - truth) > margin

    # 0.1 exactly would give 32 or more with probability 0.01.
    assert missed < 32


def test_an_image_counts_for_no_more_than_one_pixel_of_it() -> None:
    """Images' histograms spread at most as images in one bin do, on which the margins rest."""
    random = np.random.default_rng(2)
    histograms = random.dirichlet(np.full(8, 0.3), 5000)
    mean = histograms.mean(0)
    one_bin = np.diag(mean) - np.outer(mean, mean)

    gap = one_bin - np.cov(histograms.T)

    assert np.linalg.eigvalsh(gap).min() > -1e-3


def test_order_is_at_most_wasserstein_per_bin() -> None:
    """Kolmogorov's distance never exceeds the mean move in bins, which SciPy computes."""
    p, q = shares(4)
    bins = np.arange(len(p))

    assert ORDER.between(p, q) <= wasserstein_distance(bins, bins, p, q) + 1e-12
