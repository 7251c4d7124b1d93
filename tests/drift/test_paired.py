"""The paired test against published intervals, brute force over its distribution, and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from edgecls.core.errors import UsageError
from edgecls.drift.paired import (
    Paired,
    fewest_unchanged,
    lower_bound,
    mcnemar,
    most_lost,
    p_above,
    p_below,
    probability_at_most,
    score,
    upper_bound,
)


def one_score(counts: Paired, drop: float) -> float:
    lost, gained, images = counts
    return float(score(np.asarray(float(lost)), np.asarray(float(gained)), images, drop))


@pytest.mark.parametrize(
    ("counts", "confidence", "published"),
    [
        # Fagerland, Lydersen and Laake, Statistical Analysis of Contingency Tables (2017), chapter
        # 8: airway hyper-responsiveness (Bentur et al.) and complete response (Cavo et al.).
        ((1, 7, 21), 0.95, (-0.517, -0.026)),
        ((6, 16, 161), 0.95, (-0.124, -0.0054)),
        # Tango 1998: two kinds of disinfection of contact lenses, 44 subjects, 90 %.
        ((0, 1, 44), 0.90, (-0.096, 0.037)),
    ],
)
def test_score_gives_the_published_intervals(
    counts: tuple[int, int, int], confidence: float, published: tuple[float, float]
) -> None:
    table, z = Paired(*counts), stats.norm.ppf((1 + confidence) / 2)
    low = optimize.brentq(lambda drop: one_score(table, drop) - z, -1 + 1e-9, table.drop)
    high = optimize.brentq(lambda drop: one_score(table, drop) + z, table.drop, 1 - 1e-9)

    for found, expected in zip((low, high), published, strict=True):
        digits = len(str(expected).split(".")[1])
        assert found == pytest.approx(expected, abs=0.6 * 10**-digits)


@given(st.integers(1, 60), st.data())
@settings(max_examples=60)
def test_score_against_the_maximum_of_the_likelihood(images: int, data: st.DataObject) -> None:
    lost = data.draw(st.integers(0, images))
    gained = data.draw(st.integers(0, images - lost))
    drop = data.draw(st.floats(-0.9, 0.9).filter(lambda value: abs(value) > 0.01))

    def minus_log(gain: float) -> float:
        cells = (gain + drop, gain, 1 - 2 * gain - drop)
        return -sum(
            count * math.log(max(cell, 1e-300))
            for count, cell in zip((lost, gained, images - lost - gained), cells, strict=True)
        )

    low, high = max(0.0, -drop), (1 - drop) / 2
    best = optimize.minimize_scalar(minus_log, bounds=(low, high), options={"xatol": 1e-12}).x
    variance = images * (2 * best + drop - drop**2)
    expected = (lost - gained - images * drop) / math.sqrt(variance) if variance > 1e-6 else 0.0

    assert one_score(Paired(lost, gained, images), drop) == pytest.approx(
        expected, rel=2e-3, abs=2e-3
    )


def brute_force(observed: float, rate: float, drop: float, images: int) -> float:
    """Sum the trinomial over every outcome."""
    p = ((rate + drop) / 2, (rate - drop) / 2, 1 - rate)
    return sum(
        float(stats.multinomial.pmf([lost, gained, images - lost - gained], images, p))
        for lost in range(images + 1)
        for gained in range(images + 1 - lost)
        if one_score(Paired(lost, gained, images), drop) <= observed + 1e-9
    )


@pytest.mark.parametrize(
    ("counts", "drop"), [((1, 2, 30), 0.1), ((0, 0, 25), 0.1), ((5, 1, 20), 0.05),
                         ((2, 6, 24), -0.1)]
)  # fmt: skip
def test_probability_against_every_outcome(counts: tuple[int, int, int], drop: float) -> None:
    table = Paired(*counts)
    observed = one_score(table, drop)
    rates = np.asarray([abs(drop), 0.15, 0.3, 0.6])
    found = probability_at_most(observed, rates, drop, table.images, drop)
    expected = [brute_force(observed, rate, drop, table.images) for rate in rates]

    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("images", "rate", "drop"), [(100, 0.03, 0.02), (270, 0.01, 0.01),
                                                      (40, 0.3, 0.1), (200, 0.02, 0)])  # fmt: skip
def test_level_holds_exactly(images: int, rate: float, drop: float) -> None:
    """The probability of a wrong verdict, summed over all outcomes that can happen."""
    passed = failed = 0.0
    p = ((rate + drop) / 2, (rate - drop) / 2)
    for lost in range(images + 1):
        for gained in range(images + 1 - lost):
            rest = images - lost - gained
            ways = math.comb(images, lost) * math.comb(images - lost, gained)
            chance = ways * p[0] ** lost * p[1] ** gained * (1 - sum(p)) ** rest
            if chance < 1e-8:
                continue
            table = Paired(lost, gained, images)
            passed += chance * (p_below(table, drop) <= 0.05)
            failed += chance * (p_above(table, drop) <= 0.05)

    assert passed <= 0.05
    assert failed <= 0.05


def test_the_normal_approximation_would_not_hold_the_level() -> None:
    """Why the exact distribution is used: no change in 270 images looks like a proof."""
    nothing = Paired(0, 0, 270)

    assert one_score(nothing, 0.01) < stats.norm.ppf(0.05)
    assert 0.99**270 > 0.066
    assert p_below(nothing, 0.01) > 0.05


@pytest.mark.parametrize(("images", "proved"), [(20, False), (298, False), (299, True)])
def test_no_change_proves_a_point_only_on_enough_images(images: int, proved: bool) -> None:
    assert (p_below(Paired(0, 0, images), 0.01) <= 0.05) == proved


@given(st.integers(1, 300), st.data())
@settings(max_examples=15)
def test_bounds_and_tests_say_the_same(images: int, data: st.DataObject) -> None:
    lost = data.draw(st.integers(0, min(images, 30)))
    gained = data.draw(st.integers(0, min(images - lost, 30)))
    budget = data.draw(st.sampled_from([0.005, 0.01, 0.05, 0.1]))
    table = Paired(lost, gained, images)
    low, high = lower_bound(table, 0.05, budget), upper_bound(table, 0.05, budget)

    assert (high <= budget) == (p_below(table, budget) <= 0.05)
    assert (low >= budget) == (p_above(table, budget) <= 0.05)
    assert low <= table.drop + 2e-6
    assert high >= table.drop - 2e-6


def test_more_losses_never_look_better() -> None:
    values = [p_below(Paired(lost, 3, 400), 0.02) for lost in range(20)]

    assert values == sorted(values)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_against_scipy(lost: int, gained: int) -> None:
    expected = stats.binomtest(lost, lost + gained).pvalue if lost + gained else 1.0

    assert mcnemar(Paired(lost, gained, 200)) == pytest.approx(expected, rel=1e-9)


def test_most_lost_by_trying() -> None:
    changed = np.arange(0, 40, dtype=np.float64)
    found = most_lost(-1.0, changed, 100, 0.05)
    expected = [
        max((lost for lost in range(int(m) + 1)
             if one_score(Paired(lost, int(m) - lost, 100), 0.05) <= -1.0), default=-1)
        for m in changed
    ]  # fmt: skip

    assert found.tolist() == expected


def test_a_million_images_take_no_longer_than_needed() -> None:
    assert p_below(Paired(7600, 7400, 1_000_000), 0.01) == pytest.approx(1e-6)
    assert p_above(Paired(7600, 7400, 1_000_000), 0.0) == pytest.approx(0.051, abs=0.002)


@pytest.mark.parametrize("budget", [0.004, 0.01, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("alpha", [0.05, 0.005, 1e-5])
def test_fewest_unchanged_is_the_first_number_that_shows_it(budget: float, alpha: float) -> None:
    found = fewest_unchanged(budget, alpha)

    # All answers may change only for the worse: then none of n changes with (1 - budget) ** n.
    assert (1 - budget) ** found <= alpha
    assert p_below(Paired(0, 0, found), budget) <= alpha
    assert found == 1 or p_below(Paired(0, 0, found - 1), budget) > alpha


@pytest.mark.parametrize(
    ("budget", "alpha"), [(1.0, 0.05), (0.0, 0.05), (0.01, 1e-6), (0.01, 1e-9)]
)
def test_where_no_number_shows_it_the_search_ends(budget: float, alpha: float) -> None:
    with pytest.raises(UsageError, match="no number of images"):
        fewest_unchanged(budget, alpha)
