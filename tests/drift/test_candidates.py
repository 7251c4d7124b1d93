"""Candidates beside a baseline: values, verdicts and what several at once cost."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgecls.core.errors import CheckFailedError
from edgecls.core.values import Logits
from edgecls.drift.candidates import Record, join, measure_all, record
from edgecls.drift.divergence import Divergence

IMAGES, CLASSES = 200, 10
NAMES = [f"{index}.png" for index in range(IMAGES)]


def reference() -> Logits:
    return np.random.default_rng(0).normal(0, 3, (IMAGES, CLASSES)).astype(np.float32)


def noisy(spread: float, seed: int = 1) -> Logits:
    noise = np.random.default_rng(seed).normal(0, spread, (IMAGES, CLASSES))
    return reference() + noise.astype(np.float32)


def truth() -> np.ndarray:
    right = reference().argmax(1)
    right[::10] = (right[::10] + 1) % CLASSES
    return right


def recorded(candidate: Logits) -> Record:
    return record(NAMES, reference(), candidate, truth())


def test_values_are_those_of_a_plain_count() -> None:
    candidate = noisy(1.0)
    found = measure_all({"a": recorded(candidate), "b": recorded(noisy(2.0))}, "a", seed=0)["a"]

    expected, other = reference().astype(np.float64), candidate.astype(np.float64)
    five = np.argsort(-other, axis=1)[:, :5]
    assert found["agreement"].value == pytest.approx(
        100 * np.mean(expected.argmax(1) == other.argmax(1))
    )
    assert found["top1"].value == pytest.approx(100 * np.mean(other.argmax(1) == truth()))
    assert found["top5"].value == pytest.approx(100 * np.mean((five == truth()[:, None]).any(1)))
    noise = float(((expected - other) ** 2).sum())
    assert found["sqnr_db"].value == pytest.approx(10 * math.log10((expected**2).sum() / noise))
    assert all(one.verdict is None and one.difference is None for one in found.values())


def test_less_noise_is_better_more_is_worse_and_as_much_is_level() -> None:
    records = {
        "baseline": recorded(noisy(1.0)),
        "finer": recorded(noisy(0.1, 2)),
        "coarser": recorded(noisy(4.0, 3)),
        "alike": recorded(noisy(1.0, 4)),
    }
    found = measure_all(records, "baseline", seed=0)

    assert [found["finer"][m].verdict for m in ("agreement", "sqnr_db", "kl")] == ["better"] * 3
    assert [found["coarser"][m].verdict for m in ("agreement", "sqnr_db", "kl", "top1")] == [
        "worse"
    ] * 4
    assert {one.verdict for one in found["alike"].values()} == {"level"}
    kl = found["coarser"]["kl"].difference
    assert kl is not None
    assert kl.low > 0, "KL is better smaller: what is worse has more"


def test_the_baseline_again_is_level_with_itself() -> None:
    found = measure_all({"a": recorded(noisy(1.0)), "b": recorded(noisy(1.0))}, "a", seed=0)["b"]

    assert {one.verdict for one in found.values()} == {"level"}
    sqnr = found["sqnr_db"].difference
    assert sqnr is not None
    assert (sqnr.low, sqnr.high) == (0.0, 0.0)


def test_without_noise_on_either_side_nothing_is_claimed() -> None:
    found = measure_all({"a": recorded(reference()), "b": recorded(reference())}, "a", seed=0)

    assert found["b"]["sqnr_db"].value == math.inf
    assert found["b"]["sqnr_db"].verdict == "level"


def test_more_candidates_make_every_interval_wider() -> None:
    one = {"baseline": recorded(noisy(1.0)), "a": recorded(noisy(1.1, 2))}
    several = one | {f"extra {seed}": recorded(noisy(1.0, seed)) for seed in range(3, 5)}
    narrow, wide = (measure_all(records, "baseline", seed=0)["a"] for records in (one, several))

    for measure, measured in narrow.items():
        first, second = measured.difference, wide[measure].difference
        assert first is not None
        assert second is not None
        assert second.low < first.low
        assert second.high > first.high
        assert second.difference == pytest.approx(first.difference)


def test_batches_join_to_the_whole() -> None:
    candidate, right = noisy(1.0), truth()
    parts = [
        record(NAMES[a:b], reference()[a:b], candidate[a:b], right[a:b])
        for a, b in ((0, 7), (7, 100), (100, IMAGES))
    ]
    joined, whole = join(parts), record(NAMES, reference(), candidate, right)

    for measure, flags in whole.shares.items():
        assert np.array_equal(joined.shares[measure], flags)
    for name in ("signal", "noise", "kl"):
        assert np.array_equal(getattr(joined.divergence, name), getattr(whole.divergence, name))


def test_without_truth_there_is_no_accuracy_and_nan_is_refused() -> None:
    plain = record(NAMES, reference(), noisy(1.0))
    assert set(measure_all({"a": plain, "b": plain}, "a", seed=0)["a"]) == {
        "agreement", "sqnr_db", "kl",
    }  # fmt: skip
    broken = noisy(1.0)
    broken[5, 2] = np.nan
    with pytest.raises(CheckFailedError, match=r"candidate's logits of '5\.png'"):
        record(NAMES, reference(), broken)


@pytest.mark.parametrize("images", [2, 5, 20, 50])
@pytest.mark.parametrize("tail", [0.5, 1.5])
def test_equal_candidates_are_seldom_told_apart(images: int, tail: float) -> None:
    """Four whose errors are drawn alike, few images, heavy tails: 5 % of runs, and chance."""
    random = np.random.default_rng(images)
    runs, told = 60, 0
    for seed in range(runs):
        signal, scene = random.uniform(50, 150, images), random.lognormal(0, 0.7, images)
        records = {}
        for name in "abcd":
            noise = scene * random.lognormal(0, tail, images)
            records[name] = Record(
                shares={"agreement": np.ones(images, bool)},
                divergence=Divergence(signal=signal, noise=noise, kl=0.01 * noise),
            )
        found = measure_all(records, "a", seed=seed)
        told += any(found[name]["sqnr_db"].verdict != "level" for name in "bcd")

    # 3 of 60 are expected at most; 8 and more have a probability below 1 %.
    assert told <= 7
