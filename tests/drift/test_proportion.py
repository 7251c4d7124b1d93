"""One proportion against Newcombe's published table and scipy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from edgecls.drift.proportion import exact_bounds, fewest_images, wilson

# Newcombe, Statistics in Medicine 17 (1998) 857-872, table I: methods 3 (score) and 5 (exact).
PUBLISHED = [
    (81, 263, (0.2553, 0.3662), (0.2527, 0.3676)),
    (15, 148, (0.0624, 0.1605), (0.0578, 0.1617)),
    (0, 20, (0.0, 0.1611), (0.0, 0.1684)),
    (1, 29, (0.0061, 0.1718), (0.0009, 0.1776)),
]


@pytest.mark.parametrize(("successes", "trials", "score", "exact"), PUBLISHED)
def test_published(
    successes: int, trials: int, score: tuple[float, float], exact: tuple[float, float]
) -> None:
    assert wilson(successes, trials) == pytest.approx(score, abs=6e-5)
    assert exact_bounds(successes, trials, 0.025) == pytest.approx(exact, abs=6e-5)


@given(st.integers(1, 500), st.data())
def test_against_scipy(trials: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, trials))
    test = stats.binomtest(successes, trials)
    for method, found in (
        ("wilson", wilson(successes, trials, 0.9)),
        ("exact", exact_bounds(successes, trials, 0.05)),
    ):
        expected = test.proportion_ci(0.9, method)
        assert found == pytest.approx((expected.low, expected.high), abs=1e-9)


@given(st.floats(0.001, 0.999), st.sampled_from([0.05, 0.01, 0.025]))
def test_fewest_images_is_the_first_that_suffices(budget: float, alpha: float) -> None:
    fewest = fewest_images(budget, alpha)

    assert (1 - budget) ** fewest <= alpha * (1 + 1e-9)
    assert fewest == 1 or (1 - budget) ** (fewest - 1) > alpha * (1 - 1e-9)


def test_one_side_of_wilson_misses_its_level() -> None:
    """Why the gate does not judge by it: 97 % agreement on 200 images."""
    chance = sum(
        float(stats.binom.pmf(agreed, 200, 0.97))
        for agreed in range(201)
        if wilson(agreed, 200, 0.9)[1] < 0.97
    )

    assert chance > 0.06
    exact = sum(
        float(stats.binom.pmf(agreed, 200, 0.97))
        for agreed in range(201)
        if exact_bounds(agreed, 200, 0.05)[1] < 0.97
    )
    assert exact <= 0.05
