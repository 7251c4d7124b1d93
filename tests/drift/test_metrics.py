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
from edgecls.drift import Comparison, Metrics, add_logits, compare
from edgecls.drift.metrics import Accuracy, Graded


def graded(metrics: Metrics) -> Graded:
    assert metrics.graded is not None
    return metrics.graded


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
    assert graded(metrics).top1 == Accuracy(both=1, only_reference=1, only_candidate=1, neither=1)
    assert graded(metrics).top5 == Accuracy(both=4, only_reference=0, only_candidate=0, neither=0)
    top1 = graded(metrics).top1
    assert (top1.reference, top1.candidate, top1.drop) == (50.0, 50.0, 0.0)
    assert [(found.index, found.images, found.drop) for found in graded(metrics).classes] == [
        (0, 1, 0.0), (1, 2, 0.0), (2, 1, 0.0),
    ]  # fmt: skip
    flips = [(flip.image, flip.reference, flip.candidate, flip.truth) for flip in metrics.flips]
    assert flips == [("b", 1, 2, 1), ("c", 2, 1, 1)], "the lost one is worse than the gained one"
    assert metrics.flips[0].reference_confidence == pytest.approx(
        math.exp(2) / (1 + math.e + math.exp(2)), abs=5e-6
    )
    assert metrics.differences is not None
    assert metrics.differences.largest == 6.0
    assert metrics.differences.mean == (1 + 1 + 6 + 0.5) / 12
    assert metrics.differences.relative == 6 / 5


def test_without_truth() -> None:
    metrics = compare(["a"], logits([0, 1]), logits([1, 0]))

    assert metrics.graded is None
    assert [(flip.image, flip.truth) for flip in metrics.flips] == [("a", None)]


def test_of_equal_logits_the_lowest_index_answers_on_both_sides() -> None:
    tied = logits([1, 1, 1, 1, 1, 1])

    first, fifth, sixth = (graded(compare(["a"], tied, tied, [index])) for index in (0, 4, 5))

    assert (first.top1.reference, first.top5.reference) == (100.0, 100.0)
    assert (fifth.top1.candidate, fifth.top5.candidate) == (0.0, 100.0)
    assert (sixth.top5.reference, sixth.top5.candidate) == (0.0, 0.0)


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
    assert sorted(flip.image for flip in metrics.flips) == sorted(
        name for name, a, b in zip(names, ours, theirs, strict=True) if a[0] != b[0]
    )
    found = metrics.differences
    assert found is not None
    assert found.largest == max(differences)
    assert sum(entry.count for entry in found.logits.bins) == len(differences)
    assert found.mean == pytest.approx(
        float(sum(map(Fraction, differences)) / len(differences)), rel=1e-15, abs=0
    )
    relative = relative_difference(reference, candidate)
    assert found.relative == (None if math.isinf(relative) else relative)
    if truth is None:
        assert metrics.graded is None
        return
    count = len(names)
    for accuracy, best in ((graded(metrics).top1, 1), (graded(metrics).top5, 5)):
        pairs = [(t in a[:best], t in b[:best])
                 for a, b, t in zip(ours, theirs, truth, strict=True)]  # fmt: skip
        assert accuracy == Accuracy(
            both=pairs.count((True, True)),
            only_reference=pairs.count((True, False)),
            only_candidate=pairs.count((False, True)),
            neither=pairs.count((False, False)),
        )
    assert {entry.index: entry.images for entry in graded(metrics).classes} == {
        index: truth.count(index) for index in set(truth)
    }
    assert graded(metrics).reliability.images == count
    matrices = np.zeros((2, 9, 9), int)
    for a, b, t in zip(ours, theirs, truth, strict=True):
        matrices[0, t, a[0]] += 1
        matrices[1, t, b[0]] += 1
    cells = graded(metrics).confusion
    assert [cell.truth * 9 + cell.answer for cell in cells] == np.flatnonzero(
        matrices.sum(0)
    ).tolist()
    for cell in cells:
        counts = matrices[:, cell.truth, cell.answer].tolist()
        assert [cell.reference, cell.candidate] == counts
        assert cell.change == counts[1] - counts[0]


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
        add_logits(
            one,
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
    for candidate, relative in (([0, 1], None), ([0, 0], 0.0)):
        found = compare(["a"], logits([0, 0]), logits(candidate)).differences
        assert found is not None
        assert found.relative == relative


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
    add_logits(comparison, ["a"], logits([0, 1]), logits([0, 1]), [0])

    with pytest.raises(ValueError, match="every batch or for none"):
        add_logits(comparison, ["b"], logits([0, 1]), logits([0, 1]))


def test_batches_of_other_classes() -> None:
    comparison = Comparison()
    add_logits(comparison, ["a"], logits([0, 1]), logits([0, 1]))

    with pytest.raises(DataError, match="expected 2 classes"):
        add_logits(comparison, ["b"], logits([0]), logits([0]))


def test_metrics_are_frozen() -> None:
    metrics: Metrics = compare(["a"], logits([0, 1]), logits([0, 1]))

    with pytest.raises(AttributeError):
        metrics.images = 2  # type: ignore[misc]
