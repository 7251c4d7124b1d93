from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from edgecls.calibration.doctor import (
    Extremes,
    convergence,
    expected_widths,
    seed_spread,
    widths_without,
)


def extremes(lo: np.ndarray, hi: np.ndarray) -> Extremes:
    names = tuple(f"{i:03}" for i in range(len(hi)))
    return Extremes(images=names, lo=np.minimum(lo, 0.0), hi=np.maximum(hi, 0.0))


matrices = npst.arrays(np.float64, (6, 3), elements=st.floats(0, 100))


@given(lo=matrices, hi=matrices, size=st.integers(1, 6))
def test_expected_widths_are_the_mean_over_all_subsets(
    lo: np.ndarray, hi: np.ndarray, size: int
) -> None:
    subsets = [list(rows) for rows in itertools.combinations(range(6), size)]
    expected = np.mean([hi[rows].max(0) + lo[rows].max(0) for rows in subsets], axis=0)

    assert expected_widths(extremes(-lo, hi), size) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(lo=matrices, hi=matrices)
def test_widths_without_an_image_are_those_of_the_others(lo: np.ndarray, hi: np.ndarray) -> None:
    found = widths_without(extremes(-lo, hi))

    full = hi.max(0) + lo.max(0)
    for row in range(6):
        others = [other for other in range(6) if other != row]
        shrunk = full - (hi[others].max(0) + lo[others].max(0))
        expected = np.divide(shrunk, full, out=np.zeros(3), where=full > 0)
        assert found[row] == pytest.approx(expected, abs=1e-9)


def test_steady_ranges_have_converged() -> None:
    rng = np.random.default_rng(0)
    hi = rng.uniform(0.9, 1.0, (100, 20))

    found = convergence(extremes(-hi, hi), 0.08)

    assert found.growth < 0.01
    assert found.enough == 100


def test_growth_that_slows_down_says_how_many_are_enough() -> None:
    """The expected largest of m uniform values is m / (m + 1)."""
    rng = np.random.default_rng(1)
    hi = rng.uniform(0, 1, (8, 4000))

    found = convergence(extremes(0 * hi, hi), 0.02)

    assert found.growth == pytest.approx(1 - (4 / 5) / (8 / 9), abs=0.005)
    # By the law: from m to 2m it grows by 1 - (m / (m + 1)) / (2m / (2m + 1)) = 1 / (2m + 2).
    assert found.enough is not None
    assert 24 <= found.enough <= 64


def test_growth_that_does_not_slow_down_says_so() -> None:
    rng = np.random.default_rng(2)
    hi = rng.pareto(0.7, (64, 500))

    assert convergence(extremes(0 * hi, hi), 0.08).enough is None


def test_seeds_matter_where_few_images_hold_the_ends() -> None:
    rng = np.random.default_rng(3)
    hi = rng.uniform(0.9, 1.0, (100, 20))
    calm = seed_spread(extremes(-hi, hi), 0)
    hi[0] = 3.0
    moved = seed_spread(extremes(-hi, hi), 0)

    assert np.median(calm) < 0.02
    assert np.median(moved) == pytest.approx(2.0, abs=0.2)
    assert np.array_equal(moved, seed_spread(extremes(-hi, hi), 0))
