"""The verdict on the field: how often it errs, what it sees, what it refuses."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from edgecls.core.errors import DataError, UsageError
from edgecls.core.fingerprint import Fingerprint
from edgecls.drift.budgets import Budgets
from edgecls.drift.field import FieldCheck, judge_field
from edgecls.drift.gate import combined

GRAY = ("gray",)


def seen(
    random: np.random.Generator, images: int, *, brighter: float = 0, classes: Any = None,
    surer: float = 0, one_code: bool = False,
) -> Fingerprint:  # fmt: skip
    """Simulate images: each has a brightness of its own, so that its pixels are alike."""
    middle = random.normal(110 + brighter, 30, (images, 1))
    spread = 0 if one_code else 40
    codes = np.clip(np.rint(middle + spread * random.normal(size=(images, 50))), 0, 255)
    confidence = np.clip(random.beta(4, 1.5, images) + surer, 0, 0.999)
    answers = random.choice(10, images, p=classes)
    return Fingerprint(
        images=images,
        pixel_histogram=(
            tuple(np.bincount(codes.astype(int).ravel() // 8, minlength=32).tolist()),
        ),
        confidence_histogram=histogram(confidence * 20, 20),
        class_counts=histogram(answers, 10),
    )


def histogram(values: Any, bins: int) -> tuple[int, ...]:
    return tuple(np.bincount(values.astype(int).ravel(), minlength=bins).tolist())


def judged(
    calibration: Fingerprint, field: Fingerprint, *, quantized: bool = False, max_shift: float = 20,
    **budgets: Any,
) -> dict[str, FieldCheck]:  # fmt: skip
    checks = judge_field(
        calibration, field, channels=GRAY, quantized=quantized, max_shift=max_shift,
        budgets=Budgets(**budgets),
    )  # fmt: skip
    return {check.statistic: check for check in checks}


def outcome(checks: dict[str, FieldCheck]) -> str:
    return combined([check.outcome for check in checks.values()])


def test_the_same_kind_of_images_passes() -> None:
    random = np.random.default_rng(0)

    found = judged(seen(random, 500), seen(random, 20_000))

    assert list(found) == ["pixels (gray)", "confidence", "classes"]
    assert outcome(found) == "passed"
    assert all(c.lower <= (c.value or 0) <= c.upper < 20 for c in found.values())


@pytest.mark.parametrize(
    ("statistic", "shift"),
    [
        ("pixels (gray)", {"brighter": 80}),
        ("confidence", {"surer": -0.4}),
        ("classes", {"classes": [0.5, 0.5, *([0] * 8)]}),
    ],
)
def test_a_shift_fails_by_its_name(statistic: str, shift: dict[str, Any]) -> None:
    random = np.random.default_rng(1)

    found = judged(seen(random, 500), seen(random, 20_000, **shift))

    assert {name for name, check in found.items() if check.outcome == "failed"} == {statistic}
    check = found[statistic]
    if statistic == "classes":
        assert {share.class_index for share in check.classes[:2]} == {0, 1}
        assert all(share.field > 40 for share in check.classes[:2])
    else:
        assert check.calibration_mean is not None
        assert check.field_mean is not None
        moved = check.field_mean - check.calibration_mean
        assert moved == pytest.approx(75 if statistic == "pixels (gray)" else -0.4, abs=8)


def test_few_images_decide_nothing_and_say_how_many_would() -> None:
    random = np.random.default_rng(2)
    calibration = seen(random, 1000)

    few = judged(calibration, seen(random, 30))

    assert outcome(few) == "undecided"
    needed = [check.images_needed for check in few.values() if check.outcome == "undecided"]
    assert all(number is not None and number > 30 for number in needed)
    assert outcome(judged(calibration, seen(random, 20_000))) == "passed"


def test_a_small_calibration_is_said_to_be_the_reason() -> None:
    random = np.random.default_rng(3)

    found = judged(seen(random, 50), seen(random, 1_000_000))["classes"]

    assert (found.outcome, found.images_needed) == ("undecided", None)
    assert found.calibration_images_needed is not None
    assert found.calibration_images_needed > 50


def test_no_image_yet_is_undecided() -> None:
    random = np.random.default_rng(4)
    calibration = seen(random, 500)
    nothing = Fingerprint(
        images=0, pixel_histogram=((0,) * 32,), confidence_histogram=(0,) * 20,
        class_counts=(0,) * 10,
    )  # fmt: skip

    found = judged(calibration, nothing)

    assert outcome(found) == "undecided"
    assert all((c.value, c.lower, c.upper) == (None, 0, 100) for c in found.values())
    assert all(c.images_needed or c.calibration_images_needed for c in found.values())


def test_a_quantized_models_confidence_may_move_by_a_bin() -> None:
    random = np.random.default_rng(5)
    calibration, field = seen(random, 2000), seen(random, 20_000)
    counts = field.confidence_histogram
    lower = msgspec.structs.replace(
        field, confidence_histogram=(counts[0] + counts[1], *counts[2:], 0)
    )

    assert judged(calibration, lower, max_shift=5)["confidence"].outcome == "failed"
    allowed = judged(calibration, lower, max_shift=5, quantized=True)["confidence"]
    assert (allowed.outcome, allowed.slack) == ("passed", 1)


def test_with_many_classes_runs_of_them_are_compared() -> None:
    """A thousand classes, 500 images: what chance does to single classes does not count."""
    random = np.random.default_rng(6)

    def of(images: int, lowest: int) -> Fingerprint:
        answers = np.bincount(random.integers(lowest, 1000, images), minlength=1000)
        return msgspec.structs.replace(
            seen(random, images), class_counts=tuple(answers.tolist())
        )  # fmt: skip

    same = judged(of(500, 0), of(20_000, 0))["classes"]
    half = judged(of(500, 0), of(20_000, 500))["classes"]

    assert (same.distance, same.outcome) == ("runs", "passed")
    assert half.outcome == "failed"
    assert half.value == pytest.approx(50, abs=8)


@pytest.mark.slow
@pytest.mark.parametrize("one_code", [False, True])
def test_it_errs_as_seldom_as_it_says(one_code: bool) -> None:
    """Alike: hardly ever failed. At the budget itself: hardly ever passed, even for flat images."""
    random = np.random.default_rng(7)
    # Two brightnesses whose distance is the budget: the normal distribution says which.
    from scipy.stats import norm

    deviation = 30 if one_code else 50
    at_budget = 2 * deviation * norm.ppf(0.5 + 0.25 / 2)
    failed = passed = 0
    trials = 60
    for _ in range(trials):
        alike = judged(seen(random, 150), seen(random, 300), max_shift=5)
        failed += outcome(alike) == "failed"
        moved = judged(
            seen(random, 400, one_code=one_code),
            seen(random, 1500, one_code=one_code, brighter=at_budget), max_shift=22,
        )  # fmt: skip
        passed += moved["pixels (gray)"].outcome == "passed"

    # 5 of 100 would give 9 or more of 60 with probability 0.003.
    assert failed < 9
    assert passed < 9


def test_a_statistics_share_of_the_risk() -> None:
    """Failing is at a third of the risk for three statistics, passing at all of it."""
    random = np.random.default_rng(8)
    calibration, field = seen(random, 300), seen(random, 900)

    one, two = judged(calibration, field), judged(calibration, field, looks=2)

    for name, check in one.items():
        assert check.value is not None
        assert two[name].upper > check.upper
        assert check.value - check.lower >= 0
    shifted = judged(calibration, seen(random, 900, brighter=60))["pixels (gray)"]
    assert shifted.value is not None
    assert shifted.value - shifted.lower > shifted.upper - shifted.value


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pixel_histogram": ((1,) * 32,) * 3}, "expected pixel bins"),
        ({"class_counts": (300,)}, "expected pixel bins"),
        ({"confidence_histogram": (300, *(0,) * 19, 0)}, "expected pixel bins"),
        ({"images": -1}, "below 0"),
        ({"class_counts": (310, -10, *(0,) * 8)}, "below 0"),
        ({"class_counts": (0,) * 10}, "counts 0 answers of 300 images"),
        ({"confidence_histogram": (900, *(0,) * 19)}, "counts 900 confidences"),
        ({"pixel_histogram": ((0,) * 32,)}, "pixels in the channels"),
        (
            {
                "images": 1 << 63,
                "pixel_histogram": ((1 << 63, *(0,) * 31),),
                "confidence_histogram": (1 << 63, *(0,) * 19),
                "class_counts": (1 << 63, *(0,) * 9),
            },
            "images at most, found 9223372036854775808",
        ),
    ],
)
def test_counts_that_cannot_be_are_refused(changes: dict[str, Any], said: str) -> None:
    random = np.random.default_rng(9)
    calibration, field = seen(random, 300), seen(random, 300)

    with pytest.raises(DataError, match=said):
        judged(calibration, msgspec.structs.replace(field, **changes))


@pytest.mark.parametrize("limit", [0, -1, 100, float("nan")])
def test_a_budget_that_says_nothing_is_refused(limit: float) -> None:
    random = np.random.default_rng(10)

    with pytest.raises(UsageError, match="--max-shift"):
        judged(seen(random, 100), seen(random, 100), max_shift=limit)


def test_a_calibration_of_nothing_is_refused() -> None:
    random = np.random.default_rng(11)
    nothing = msgspec.structs.replace(seen(random, 100), images=0)

    with pytest.raises(DataError, match="of no image"):
        judged(nothing, seen(random, 100))
