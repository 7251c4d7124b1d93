from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray
from scipy import stats

from edgecls.calibration.observers import OBSERVERS, EntropyObserver, MinMaxObserver
from edgecls.calibration.observers.entropy import LEVELS, entropy_bins
from edgecls.calibration.observers.histogram import BINS, MagnitudeHistogram
from edgecls.core.ranges import CalibrationMethod, Range

METHODS = list(OBSERVERS)

values = npst.arrays(
    np.float32,
    st.integers(1, 300),
    elements=st.floats(-1e6, 1e6, width=32, allow_nan=False, allow_infinity=False),
)


def reference_entropy_bins(counts: NDArray[np.int64]) -> int:
    """NVIDIA's published loop, bin by bin, with scipy's divergence."""
    bins = counts.astype(np.float64)
    bins[0] = bins[1]
    best = (np.inf, len(bins))
    for kept in range(LEVELS, len(bins) + 1):
        level = np.digitize(range(kept), np.linspace(0, kept, LEVELS + 1)) - 1
        level[bins[:kept] == 0] = -1
        spread = np.zeros(kept)
        for index in range(LEVELS):
            members = level == index
            if members.any():
                spread[members] = bins[:kept][members].mean()
        reference = bins[:kept].copy()
        reference[-1] += bins[kept:].sum()
        if reference.sum() and spread.sum():
            divergence = stats.entropy(reference / reference.sum(), spread / spread.sum())
            if divergence <= best[0]:
                best = (divergence, kept)
    return best[1]


def test_minmax_is_the_smallest_and_the_largest() -> None:
    observer = MinMaxObserver()
    observer.update(np.array([[1.5, -2.0]], np.float32))
    observer.update(np.array([[0.5, 3.0]], np.float32))

    assert observer.range() == Range(-2.0, 3.0)


@pytest.mark.parametrize("method", METHODS)
@settings(deadline=None, max_examples=30)
@given(values=values, data=st.data())
def test_neither_order_nor_batches_change_the_range(
    method: CalibrationMethod, values: NDArray[np.float32], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, values.size))
    shuffled = data.draw(st.permutations(values.tolist()))
    whole, parts = OBSERVERS[method](), OBSERVERS[method]()
    whole.update(values)
    for part in (np.array(shuffled[:cut], np.float32), np.array(shuffled[cut:], np.float32)):
        if part.size:
            parts.update(part)

    assert whole.range() == parts.range()


@settings(deadline=None)
@given(values=values)
def test_histogram_counts_as_numpy_does(values: NDArray[np.float32]) -> None:
    histogram = MagnitudeHistogram()
    histogram.update(values)

    if histogram.exponent is None:
        assert not values.any()
        return
    edges = np.arange(BINS + 1) * histogram.width
    expected, _ = np.histogram(np.abs(values).astype(np.float64), edges)
    assert np.array_equal(histogram.counts, expected)
    assert histogram.counts[BINS // 2 :].any(), "at least half of the bins are in use"


def test_histogram_widens_by_merging_pairs() -> None:
    histogram = MagnitudeHistogram()
    histogram.update(np.arange(16, dtype=np.float32))
    before = histogram.counts.copy()
    width = histogram.width
    histogram.update(np.array([31.0], np.float32))

    assert histogram.width == 2 * width
    assert np.array_equal(histogram.counts[: BINS // 2 - 1], before.reshape(-1, 2).sum(1)[:-1])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["normal", "laplace", "relu", "outlier"])
def test_entropy_is_the_published_algorithm(kind: str, seed: int) -> None:
    generator = np.random.default_rng(seed)
    samples = {
        "normal": generator.normal(size=3000),
        "laplace": generator.laplace(size=3000),
        "relu": np.maximum(generator.normal(size=3000), 0),
        "outlier": np.append(generator.normal(size=3000), 40.0),
    }[kind]
    counts, _ = np.histogram(np.abs(samples), bins=400, range=(0, np.abs(samples).max()))

    assert entropy_bins(counts) == reference_entropy_bins(counts)


def test_entropy_cuts_an_outlier_that_minmax_keeps() -> None:
    normal = np.random.default_rng(0).normal(size=20000).astype(np.float32)
    observer = EntropyObserver()
    observer.update(np.append(normal, np.float32(100.0)))

    found = observer.range()

    assert found.lo == normal.min()
    assert found.hi < 20.0


def test_entropy_of_zeros_is_zero() -> None:
    observer = EntropyObserver()
    observer.update(np.zeros(10, np.float32))

    assert observer.range() == Range(0.0, 0.0)


@pytest.mark.parametrize(("lo", "hi"), [(1.0, 0.0), (math.nan, 1.0), (0.0, math.inf)])
def test_range_refuses_what_is_no_interval(lo: float, hi: float) -> None:
    with pytest.raises(ValueError, match="lo <= hi"):
        Range(lo, hi)
