"""What is kept while images stream by: bounded, exact, and the same in any order and grouping."""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from edgecls.core.errors import DataError
from edgecls.drift import Flip
from edgecls.drift.answers import answers_of
from edgecls.drift.flips import KEPT, WorstFlips
from edgecls.drift.histogram import Histogram
from edgecls.drift.matrix import AgreementCounts
from edgecls.drift.reliability import BINS, Reliability, ReliabilityCounts


def flip(index: int, *, truth: int | None = 0, sure: float = 0.5, reference: int = 0) -> Flip:
    return Flip(
        image=f"{index:06d}.png", reference=reference, candidate=1 - reference, truth=truth,
        reference_confidence=sure, candidate_confidence=0.4,
    )  # fmt: skip


def test_worst_first() -> None:
    lost, surer = flip(1, sure=0.5), flip(2, sure=0.9)
    wrong, gained, same = flip(3, truth=7, sure=0.99), flip(4, truth=0, reference=1), flip(5)
    worst = WorstFlips()
    worst.add([gained, wrong, same, lost, surer])

    assert worst.result() == (surer, lost, same, wrong, gained)


@given(st.permutations(range(30)), st.integers(1, 29))
@settings(max_examples=20)
def test_flips_are_the_same_in_any_order(order: list[int], cut: int) -> None:
    every = [flip(index % 20, sure=(index % 3) / 4) for index in range(30)]
    parts = [WorstFlips(), WorstFlips()]
    for part, indices in zip(parts, (order[:cut], order[cut:]), strict=True):
        part.add([every[index] for index in indices])
    parts[1].merge(parts[0])
    whole = WorstFlips()
    whole.add(every)

    assert parts[1].result() == whole.result()


def test_flips_are_bounded_and_keep_the_worst() -> None:
    random = np.random.default_rng(0)
    sure = random.random(5 * KEPT).round(3).tolist()
    flips = [flip(index, sure=value) for index, value in enumerate(sure)]
    worst, other = WorstFlips(), WorstFlips()
    for start in range(0, 2 * KEPT, 100):
        worst.add(flips[start : start + 100])
        assert len(worst._flips) <= 2 * KEPT
    other.add(flips[2 * KEPT :])
    worst.merge(other)

    assert worst.result() == tuple(sorted(flips, key=lambda found: found.severity)[:KEPT])


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60), st.sampled_from([0.1, 0.5, 0.9, 1.0]))
def test_quantiles_are_never_too_small_and_at_most_an_eighth_too_large(
    values: list[float], share: float
) -> None:
    histogram = Histogram()
    histogram.add(np.asarray(values))
    found = histogram.result().quantile(share)
    exact = sorted(values)[math.ceil(share * len(values)) - 1]

    assert found >= min(exact, 2.0**32)
    assert found <= max(exact * 9 / 8, 2.0**-31)
    assert sum(entry.count for entry in histogram.result().bins) == len(values)


def test_edges_of_the_histogram() -> None:
    histogram = Histogram()
    histogram.add(np.asarray([0.0, 0.5, 0.5625, 1.0, 1e-300, 1e300]))
    bins = {entry.upper: entry.count for entry in histogram.result().bins}

    assert bins[0.0] == bins[0.5] == bins[0.5625] == bins[1.0] == 1
    assert len(bins) == 6
    assert histogram.counts.nbytes < 8192


Case = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def sides(random: np.random.Generator, images: int, shift: float, flips: float) -> Case:
    """Return (confidence, right) of a calibrated reference and of a candidate that is surer."""
    confidence = random.beta(4, 1, images)
    right = random.random(images) < confidence - 0.05
    other = np.clip(confidence + shift, 0.01, 0.99999)
    changed = random.random(images) < flips
    return confidence, right, other, np.where(changed, random.random(images) < 0.5, right)


def counted(case: Case) -> ReliabilityCounts:
    counts = ReliabilityCounts()
    units = [np.round(values * 100_000).astype(np.int64) for values in (case[0], case[2])]
    counts.add((units[0], case[1]), (units[1], case[3]))
    return counts


def plain_ece(confidence: np.ndarray, right: np.ndarray) -> float:
    """Guo et al., equation 3, by a loop."""
    total = 0.0
    for place in range(BINS):
        low, high = place / BINS, (place + 1) / BINS
        inside = (confidence >= low) & ((confidence < high) | (place == BINS - 1))
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return total


def test_ece_against_a_loop() -> None:
    case = sides(np.random.default_rng(1), 3000, 0.03, 0.05)
    found = counted(case).result()

    assert found.images == 3000
    assert found.reference_ece == pytest.approx(plain_ece(case[0], case[1]), abs=2e-4)
    assert found.candidate_ece == pytest.approx(plain_ece(case[2], case[3]), abs=2e-4)
    assert found.rise == found.candidate_ece - found.reference_ece


def test_moments_are_those_of_the_gaps() -> None:
    case = sides(np.random.default_rng(2), 500, 0.02, 0.1)
    found = counted(case).result()
    gaps = np.zeros((500, 2 * BINS))
    for start, confidence, right in ((0, case[2], case[3]), (BINS, case[0], case[1])):
        place = np.minimum((np.round(confidence * 1e5) * BINS // 1e5).astype(int), BINS - 1)
        gaps[np.arange(500), start + place] = np.round(confidence, 5) - right
    expected = (gaps.T @ gaps / 500)[np.triu_indices(2 * BINS)]

    assert found.moments == pytest.approx(expected, abs=1e-9)


@given(st.lists(st.integers(0, 199), max_size=3), st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_reliability_is_the_same_in_any_grouping(cuts: list[int], seed: int) -> None:
    case = sides(np.random.default_rng(seed), 200, 0.02, 0.1)
    whole = counted(case).result()
    merged = ReliabilityCounts()
    edges = [0, *sorted(cuts), 200]
    for start, end in reversed(list(itertools.pairwise(edges))):
        part = counted(tuple(values[start:end] for values in case))  # type: ignore[arg-type]
        merged.merge(part)

    assert merged.result() == whole


@functools.cache
def true_rise(shift: float, flips: float) -> float:
    case = sides(np.random.default_rng(99), 1_000_000, shift, flips)
    return plain_ece(case[2], case[3]) - plain_ece(case[0], case[1])


@pytest.mark.parametrize(("shift", "flips"), [(0.02, 0.02), (0.0, 0.05), (-0.05, 0.01)])
@pytest.mark.parametrize("images", [200, 1000])
def test_bounds_of_the_rise_hold(images: int, shift: float, flips: float) -> None:
    """150 samples; a bound that held in 95 % would miss it more than 15 times in 1 of 200 tries."""
    random, missed = np.random.default_rng(5), 0
    for _ in range(150):
        found = counted(sides(random, images, shift, flips)).result()
        missed += not found.lower_bound(0.05) <= true_rise(shift, flips) <= found.upper_bound(0.05)

    assert missed <= 15


def test_a_bound_of_the_rise_is_of_use() -> None:
    found = counted(sides(np.random.default_rng(6), 10_000, 0.0, 0.005)).result()

    assert -0.02 < found.lower_bound(0.05) <= found.rise <= found.upper_bound(0.05) < 0.02


def test_models_that_are_one_have_no_rise() -> None:
    case = sides(np.random.default_rng(7), 300, 0, 0)
    same: Reliability = counted((case[0], case[1], case[0], case[1])).result()

    assert same.rise == 0.0
    assert same.upper_bound(0.05) == pytest.approx(0, abs=1e-6)


def test_confidence_is_the_largest_softmax() -> None:
    logits = np.random.default_rng(8).normal(size=(20, 9)).astype(np.float32) * 4
    found = answers_of(logits, names=[str(index) for index in range(20)])
    powers = np.exp(logits.astype(np.float64))
    expected = (powers / powers.sum(1, keepdims=True)).max(1)

    assert found.confidence / 1e5 == pytest.approx(expected, abs=5.1e-6)
    assert found.in_top5 is None


@given(st.integers(2, 4), st.integers(1, 30), st.data())
@settings(max_examples=30)
def test_matrix_against_counting(sources: int, images: int, data: st.DataObject) -> None:
    answers = [
        np.asarray(data.draw(st.lists(st.integers(0, 2), min_size=images, max_size=images)))
        for _ in range(sources)
    ]
    cut = data.draw(st.integers(0, images))
    first, second = AgreementCounts(), AgreementCounts()
    first.add([row[:cut] for row in answers])
    second.add([row[cut:] for row in answers])
    first.merge(second)

    assert first.images == images
    for pair in first.result():
        agreed = int(np.sum(answers[pair.first] == answers[pair.second]))
        interval = stats.binomtest(agreed, images).proportion_ci(0.95, "wilson")
        assert pair.agreed == agreed
        assert (pair.lower, pair.upper) == pytest.approx(
            (100 * interval.low, 100 * interval.high), abs=1e-6
        )


def test_matrix_of_nothing() -> None:
    with pytest.raises(DataError, match="no image"):
        AgreementCounts().result()
