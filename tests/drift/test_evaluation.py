from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecls.core.errors import CheckFailedError, DataError
from edgecls.drift.evaluation import Evaluation, EvaluationCounts
from edgecls.drift.mistakes import KEPT


def evaluated(logits: np.ndarray, truth: np.ndarray, batch: int = 1000) -> Evaluation:
    counts = EvaluationCounts()
    names = [f"{index:05d}" for index in range(len(logits))]
    for start in range(0, len(logits), batch):
        part = slice(start, start + batch)
        counts.add(names[part], logits[part], truth[part])
    return counts.result(model="m", backend="b", truth="t")


def random_case(seed: int, images: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes, images)
    logits = random.normal(size=(images, classes)).astype(np.float32) * 2
    logits[np.arange(images), truth] += random.random(images).astype(np.float32) * 4
    return logits, truth


def test_by_hand() -> None:
    """Three cats, one of them called a dog, and one dog; a bird is never there or answered."""
    big = 50.0
    logits = np.asarray([[big, 0, 0], [big, 0, 0], [0, big, 0], [0, big, 0]], np.float32)

    found = evaluated(logits, np.asarray([0, 0, 0, 1]))

    assert found.top1 == 75.0
    assert found.top5 == 100.0
    assert found.wrong == 1
    cat, dog = found.per_class
    assert (cat.precision, cat.recall, cat.f1) == (100.0, pytest.approx(200 / 3), 80.0)
    assert (dog.precision, dog.recall) == (50.0, 100.0)
    assert dog.f1 == pytest.approx(200 / 3)
    assert found.precision == 75.0
    assert found.confusion[1] == type(found.confusion[0])(0, 1, 1)
    assert found.ece == pytest.approx(25.0)
    assert [m.image for m in found.mistakes] == ["00002"]
    assert found.mistakes[0].confidence == 1.0
    assert found.mistakes[0].truth_confidence == pytest.approx(math.exp(-50))
    low, high = found.top1_interval  # Wilson's for 3 of 4, from R's prop.test(3, 4, correct=F)
    assert (low, high) == (pytest.approx(30.06418), pytest.approx(95.44127))


@given(st.integers(0, 10_000), st.integers(1, 80), st.integers(2, 9), st.integers(1, 30))
def test_against_the_formulas(seed: int, images: int, classes: int, batch: int) -> None:
    logits, truth = random_case(seed, images, classes)

    found = evaluated(logits, truth, batch)

    exact = logits.astype(np.float64)
    probability = np.exp(exact) / np.exp(exact).sum(1, keepdims=True)
    answer = probability.argmax(1)
    best = np.argsort(-probability, axis=1)[:, :5]
    assert found.top1 == pytest.approx(100 * np.mean(answer == truth))
    assert found.top5 == pytest.approx(100 * np.mean((best == truth[:, None]).any(1)))
    for score in found.per_class:
        own, given = truth == score.index, answer == score.index
        assert (score.images, score.answered) == (own.sum(), given.sum())
        if given.any():
            assert score.precision == pytest.approx(100 * np.mean(own[given]))
        else:
            assert score.precision is None
        if own.any():
            assert score.recall == pytest.approx(100 * np.mean(given[own]))
        p, r = score.precision or 0.0, score.recall or 0.0
        assert score.f1 == pytest.approx(2 * p * r / (p + r) if p + r else 0.0)
    present = [score for score in found.per_class if score.images]
    assert found.f1 == pytest.approx(np.mean([score.f1 for score in present]))
    confusion = np.zeros((classes, classes), int)
    np.add.at(confusion, (truth, answer), 1)
    assert {(c.truth, c.answer): c.images for c in found.confusion} == {
        (int(i), int(j)): int(confusion[i, j]) for i, j in zip(*np.nonzero(confusion), strict=True)
    }
    # Confidences are counted in units of 1e-5: a bin's border may lie within one.
    confidence = np.round(probability.max(1), 5)
    bins = np.minimum((confidence * 15 + 1e-9).astype(int), 14)
    gaps = [
        abs(confidence[bins == b].sum() - (answer == truth)[bins == b].sum()) for b in range(15)
    ]
    assert found.ece == pytest.approx(100 * sum(gaps) / images, abs=2e-3)


def test_batches_and_their_order_change_nothing() -> None:
    logits, truth = random_case(1, 200, 5)
    names = np.asarray([f"{index:05d}" for index in range(200)])
    order = np.random.default_rng(2).permutation(200)
    counts = EvaluationCounts()
    for part in np.array_split(order, 7):
        counts.add(names[part].tolist(), logits[part], truth[part])

    shuffled = counts.result(model="m", backend="b", truth="t")

    assert shuffled == evaluated(logits, truth)
    assert shuffled.to_json() == evaluated(logits, truth, 1).to_json()


def test_the_worst_mistakes_stay_and_all_are_counted() -> None:
    images = 5 * KEPT
    logits = np.zeros((images, 2), np.float32)
    logits[:, 1] = np.linspace(0.1, 6, images, dtype=np.float32)

    found = evaluated(logits, np.zeros(images, int), batch=97)

    assert found.wrong == images
    assert len(found.mistakes) == KEPT
    assert [m.image for m in found.mistakes[:2]] == [f"{images - 1:05d}", f"{images - 2:05d}"]
    sure = [m.confidence for m in found.mistakes]
    assert sure == sorted(sure, reverse=True)


def test_what_cannot_be_counted_is_refused() -> None:
    counts = EvaluationCounts()
    with pytest.raises(DataError, match="no image could be compared"):
        counts.result(model="m", backend="b", truth="t")
    with pytest.raises(CheckFailedError, match="NaN"):
        counts.add(["a"], np.full((1, 3), np.nan, np.float32), [0])
    with pytest.raises(DataError, match="class index 3"):
        counts.add(["a"], np.zeros((1, 3), np.float32), [3])


def test_names_are_shown_where_there_are_some() -> None:
    counts = EvaluationCounts()
    counts.add(["a"], np.asarray([[0.0, 1.0]], np.float32), [0])

    found = counts.result(model="m", backend="b", truth="t", names={0: "cat"})

    assert found.name_of(0) == "cat"
    assert found.name_of(1) == "1"
