"""Metrics against plain loops over the definition, and against hand-made cases."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecls.core.errors import CheckFailedError, DataError
from edgecls.core.values import relative_difference
from edgecls.drift import Comparison, Flip, Metrics, compare


def logits(*rows: list[float]) -> np.ndarray:
    return np.asarray(rows, np.float32)


def test_by_hand() -> None:
    reference = logits([3, 1, 0], [0, 2, 1], [1, 0, 5], [4, 0, 0])
    candidate = logits([3, 1, 0], [0, 1, 2], [1, 6, 5], [4, 0, 0.5])
    #                  right       lost       gained      wrong twice
    metrics = compare(["d", "b", "c", "a"], reference, candidate, [0, 1, 1, 2])

    assert metrics.images == 4
    assert metrics.classes == 3
    assert metrics.agreed == 2
    assert metrics.agreement == 50.0
    assert metrics.accuracy is not None
    found = metrics.accuracy
    assert (found.both, found.only_reference, found.only_candidate, found.neither) == (1, 1, 1, 1)
    assert (metrics.reference_top1, metrics.candidate_top1, metrics.top1_drop) == (50.0, 50.0, 0.0)
    assert (metrics.reference_top5, metrics.candidate_top5) == (100.0, 100.0)
    assert metrics.flips == (
        Flip(image="b", reference=1, candidate=2, truth=1),
        Flip(image="c", reference=2, candidate=1, truth=1),
    )
    assert metrics.max_logit_difference == 6.0
    assert metrics.mean_logit_difference == (1 + 1 + 6 + 0.5) / 12
    assert metrics.relative_difference == 6 / 5


def test_without_truth() -> None:
    metrics = compare(["a"], logits([0, 1]), logits([1, 0]))

    assert metrics.accuracy is None
    assert metrics.top1_drop is None
    assert metrics.reference_top1 is None
    assert metrics.candidate_top5 is None
    assert metrics.flips == (Flip(image="a", reference=1, candidate=0, truth=None),)


def test_of_equal_logits_the_lowest_index_answers_on_both_sides() -> None:
    tied = logits([1, 1, 1, 1, 1, 1])

    first = compare(["a"], tied, tied, [0])
    fifth = compare(["a"], tied, tied, [4])
    sixth = compare(["a"], tied, tied, [5])

    assert (first.reference_top1, first.reference_top5) == (100.0, 100.0)
    assert (fifth.candidate_top1, fifth.candidate_top5) == (0.0, 100.0)
    assert (sixth.reference_top5, sixth.candidate_top5) == (0.0, 0.0)


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[str], np.ndarray, np.ndarray, list[int] | None]:
    count, classes = draw(st.integers(1, 12)), draw(st.integers(1, 9))
    # Few values, so that ties are common.
    values = st.lists(st.integers(-3, 3), min_size=classes, max_size=classes)
    rows = st.lists(values, min_size=count, max_size=count)
    reference, candidate = draw(rows), draw(rows)
    names = draw(st.permutations([f"{index}.png" for index in range(count)]))
    truth = draw(st.none() | st.lists(st.integers(0, classes - 1), min_size=count, max_size=count))
    return list(names), logits(*reference) / 3, logits(*candidate) / 7, truth


def ranked(row: np.ndarray) -> list[int]:
    return sorted(range(len(row)), key=lambda index: (-row[index], index))


@given(cases())
@settings(max_examples=150, deadline=None)
def test_against_the_definition(
    case: tuple[list[str], np.ndarray, np.ndarray, list[int] | None],
) -> None:
    names, reference, candidate, truth = case
    ours, theirs = [ranked(row) for row in reference], [ranked(row) for row in candidate]
    metrics = compare(names, reference, candidate, truth)
    differences = np.abs(reference.astype(np.float64) - candidate).ravel().tolist()

    assert metrics.agreed == sum(a[0] == b[0] for a, b in zip(ours, theirs, strict=True))
    assert [flip.image for flip in metrics.flips] == sorted(
        name for name, a, b in zip(names, ours, theirs, strict=True) if a[0] != b[0]
    )
    assert metrics.max_logit_difference == max(differences)
    assert metrics.mean_logit_difference == pytest.approx(
        float(sum(map(Fraction, differences)) / len(differences)), rel=1e-15, abs=0
    )
    assert metrics.relative_difference == relative_difference(reference, candidate)
    if truth is None:
        assert metrics.accuracy is None
        return
    assert metrics.accuracy is not None
    count = len(names)
    both = sum(a[0] == b[0] == t for a, b, t in zip(ours, theirs, truth, strict=True))
    assert metrics.accuracy.both == both
    for ranks, top1, top5 in (
        (ours, metrics.reference_top1, metrics.reference_top5),
        (theirs, metrics.candidate_top1, metrics.candidate_top5),
    ):
        pairs = list(zip(ranks, truth, strict=True))
        assert top1 == 100 * sum(r[0] == t for r, t in pairs) / count
        assert top5 == 100 * sum(t in r[:5] for r, t in pairs) / count
    table = metrics.accuracy
    assert table.both + table.only_reference + table.only_candidate + table.neither == count


@given(cases(), st.data())
@settings(max_examples=100, deadline=None)
def test_batches_and_merges_change_nothing(
    case: tuple[list[str], np.ndarray, np.ndarray, list[int] | None], data: st.DataObject
) -> None:
    names, reference, candidate, truth = case
    count = len(names)
    order = data.draw(st.permutations(range(count)))
    cuts = sorted(data.draw(st.lists(st.integers(0, count), max_size=3)))
    whole = compare(names, reference, candidate, truth)
    merged = Comparison()
    for start, end in zip([0, *cuts], [*cuts, count], strict=True):
        part = list(order[start:end])
        one = Comparison()
        one.add(
            [names[i] for i in part],
            reference[part],
            candidate[part],
            None if truth is None else [truth[i] for i in part],
        )
        other = Comparison()
        other.merge(one)
        other.merge(merged)
        merged = other

    assert merged.result() == whole


def test_all_zero_reference() -> None:
    assert compare(["a"], logits([0, 0]), logits([0, 1])).relative_difference == math.inf
    assert compare(["a"], logits([0, 0]), logits([0, 0])).relative_difference == 0.0


@pytest.mark.parametrize("side", ["reference", "candidate"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_not_a_number_is_a_failed_check(side: str, value: float) -> None:
    good, bad = logits([0, 1], [0, 1]), logits([0, 1], [value, 1])
    both = (bad, good) if side == "reference" else (good, bad)

    with pytest.raises(CheckFailedError, match=rf"{side}'s logits of 'b\.png' hold NaN"):
        compare(["a.png", "b.png"], *both)


def test_classes_differ() -> None:
    with pytest.raises(DataError, match=r"\(1, 2\) and \(1, 3\)"):
        compare(["a"], logits([0, 1]), logits([0, 1, 2]))


def test_class_index_without_output() -> None:
    with pytest.raises(DataError, match="a: class index 2, the models have 2 outputs"):
        compare(["a"], logits([0, 1]), logits([0, 1]), [2])


def test_nothing_to_compare() -> None:
    with pytest.raises(DataError, match="no image"):
        Comparison().result()


def test_truth_for_some_batches_only() -> None:
    comparison = Comparison()
    comparison.add(["a"], logits([0, 1]), logits([0, 1]), [0])

    with pytest.raises(ValueError, match="every batch or for none"):
        comparison.add(["b"], logits([0, 1]), logits([0, 1]))


def test_batches_of_other_classes() -> None:
    comparison = Comparison()
    comparison.add(["a"], logits([0, 1]), logits([0, 1]))

    with pytest.raises(DataError, match="expected 2 classes"):
        comparison.add(["b"], logits([0]), logits([0]))


def test_metrics_are_frozen() -> None:
    metrics: Metrics = compare(["a"], logits([0, 1]), logits([0, 1]))

    with pytest.raises(AttributeError):
        metrics.images = 2  # type: ignore[misc]
