"""Paired intervals: the bootstrap's against scipy's, the shares' against the exact test."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from edgecls.drift.interval import Interval, bootstrap_intervals, share_interval
from edgecls.drift.paired import Paired, p_above, p_below

Reals = NDArray[np.float64]


def difference_and_ratio(means: Reals) -> Reals:
    first, second = means[..., 0], means[..., 1]
    return np.stack([first - second, 10 * np.log10(first / second)], axis=-1)


@pytest.mark.parametrize("alpha", [0.05, 0.01])
@pytest.mark.parametrize("images", [40, 400])
def test_bootstrap_is_scipys_bca(images: int, alpha: float) -> None:
    """Other resamples, so equal within the Monte Carlo error of the ends."""
    generator = np.random.default_rng(images)
    one = generator.gamma(1.0, size=images)
    two = one * generator.lognormal(0.05, 0.4, images)
    found = bootstrap_intervals(np.stack([one, two], 1), difference_and_ratio, alpha=alpha, seed=0)

    for index, interval in enumerate(found):

        def statistic(x: Reals, y: Reals, axis: int = -1, index: int = index) -> Reals:
            return difference_and_ratio(np.stack([x.mean(axis), y.mean(axis)], -1))[..., index]

        expected = stats.bootstrap(
            (one, two), statistic, paired=True, vectorized=True, batch=500, n_resamples=20_000,
            confidence_level=1 - alpha, method="BCa",
        ).confidence_interval  # fmt: skip
        width = expected.high - expected.low
        assert interval.difference == pytest.approx(float(statistic(one, two)))
        assert interval.low == pytest.approx(expected.low, abs=0.08 * width)
        assert interval.high == pytest.approx(expected.high, abs=0.08 * width)


def test_bootstrap_of_a_mean_is_near_students() -> None:
    values = np.random.default_rng(1).normal(0.1, 1.0, (500, 1))
    (found,) = bootstrap_intervals(values, lambda means: means, alpha=0.05, seed=3)
    expected = stats.ttest_1samp(values[:, 0], 0.0).confidence_interval(0.95)

    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.01)


def test_bootstrap_is_seeded() -> None:
    values = np.random.default_rng(1).normal(size=(50, 1))
    one, again, other = (
        bootstrap_intervals(values, lambda means: means, alpha=0.05, seed=seed)
        for seed in (0, 0, 1)
    )

    assert one == again != other


def test_bootstrap_of_equal_candidates_and_of_too_few() -> None:
    same = np.repeat(np.random.default_rng(0).gamma(1.0, size=(30, 1)), 2, axis=1)
    for found in bootstrap_intervals(same, difference_and_ratio, alpha=0.05, seed=0):
        assert found == Interval(difference=0.0, low=0.0, high=0.0)
        assert found.side == "level"

    single = np.zeros((30, 2))
    single[0] = 1.0, 2.0
    with np.errstate(invalid="ignore", divide="ignore"):
        found = bootstrap_intervals(single, difference_and_ratio, alpha=0.05, seed=0)[1]
    assert (found.low, found.high) == (-math.inf, math.inf), "the ratio hangs on one image"
    assert found.side == "level"


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (0, 6), (3, 1), (12, 2), (30, 31)])
def test_share_interval_is_the_exact_test_turned_round(lost: int, gained: int) -> None:
    theirs = np.arange(300) < 200
    ours = theirs.copy()
    ours[:lost], ours[250 : 250 + gained] = False, True
    found = share_interval(ours, theirs, 0.05)
    counts = Paired(lost, gained, 300)

    assert found.difference == pytest.approx((gained - lost) / 300)
    assert found.low <= found.difference <= found.high
    # Beyond an end the exact test rejects, within it does not.
    assert p_above(counts, -found.high - 1e-4) <= 0.025 < p_above(counts, -found.high + 1e-4)
    assert p_below(counts, -found.low + 1e-4) <= 0.025 < p_below(counts, -found.low - 1e-4)
    mirrored = share_interval(theirs, ours, 0.05)
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low), abs=1e-5)


@pytest.mark.parametrize(
    ("low", "high", "side"), [(0.1, 0.2, "above"), (-0.2, -0.1, "below"), (-0.1, 0.2, "level"),
                              (0.0, 0.2, "level")],
)  # fmt: skip
def test_side(low: float, high: float, side: str) -> None:
    assert Interval(difference=(low + high) / 2, low=low, high=high).side == side
