"""The verdict: outcomes by hand, the shared levels, and the risks by simulation."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from edgecls.core.errors import UsageError
from edgecls.drift import Budgets, Metrics, Verdict, compare, gate, judge
from edgecls.drift.gate import Check
from edgecls.drift.metrics import Accuracy, ClassAccuracy, Graded
from edgecls.drift.reliability import ReliabilityCounts


def metrics(*, images: int, lost: int, gained: int = 0, truth: bool = True) -> Metrics:
    """Return a comparison in which ``lost`` right answers were lost and ``gained`` were gained."""
    right, wrong = [9.0, 0, 0, 0, 0, 0, 0], [0, 9.0, 0, 0, 0, 0, 0]
    reference = [right] * (images - gained) + [wrong] * gained
    candidate = [wrong] * lost + [right] * (images - lost)
    names = [f"{index:04d}.png" for index in range(images)]
    first, second = np.asarray(reference, np.float32), np.asarray(candidate, np.float32)
    return compare(names, first, second, [0] * images if truth else None)


def by_class(*tables: tuple[int, int, int]) -> Metrics:
    """Return a comparison with (lost, gained, images) of each class."""
    classes = tuple(
        ClassAccuracy(index=index, both=n - lost - gained, only_reference=lost,
                      only_candidate=gained, neither=0)
        for index, (lost, gained, n) in enumerate(tables)
    )  # fmt: skip
    total = Accuracy(
        both=sum(found.both for found in classes),
        only_reference=sum(found.only_reference for found in classes),
        only_candidate=sum(found.only_candidate for found in classes),
        neither=0,
    )
    counts = ReliabilityCounts()
    sure = np.full(total.images, 100_000)
    counts.add((sure, sure > 0), (sure, sure > 0))
    graded = Graded(
        top1=total, top5=total, classes=classes, reliability=counts.result(), confusion=()
    )
    agreed = total.images - total.only_reference - total.only_candidate
    return Metrics(images=total.images, classes=max(2, len(tables)), agreed=agreed,
                   differences=None, graded=graded, flips=())  # fmt: skip


def only(verdict: Verdict) -> Check:
    (check,) = verdict.checks
    return check


@pytest.mark.parametrize(
    ("images", "lost", "gained", "budget", "outcome"),
    [
        (20, 0, 0, 1.0, "undecided"),
        (298, 0, 0, 1.0, "undecided"),
        (299, 0, 0, 1.0, "passed"),
        (400, 1, 2, 1.0, "passed"),
        (400, 4, 4, 1.0, "undecided"),
        (400, 12, 1, 1.0, "failed"),
        (400, 7, 1, 1.0, "undecided"),
        (1000, 5, 5, 1.0, "passed"),
        (100, 100, 0, 50.0, "failed"),
        (10, 10, 0, 1.0, "failed"),
    ],
)
def test_drop(images: int, lost: int, gained: int, budget: float, outcome: str) -> None:
    verdict = judge(metrics(images=images, lost=lost, gained=gained), Budgets(max_drop=budget))
    check = only(verdict)

    assert verdict.outcome == check.outcome == outcome
    assert verdict.exit_code == {"passed": 0, "failed": 1, "undecided": 5}[outcome]
    assert check.value == pytest.approx(100 * (lost - gained) / images)
    assert check.lower is not None
    assert check.upper is not None
    assert (check.upper <= budget) == (outcome == "passed")
    assert (check.lower >= budget) == (outcome == "failed")


def test_the_default_is_a_point_of_top1_with_95_percent() -> None:
    verdict = judge(metrics(images=400, lost=0), Budgets())

    assert (verdict.confidence, verdict.looks) == (95.0, 1)
    assert (only(verdict).measure, only(verdict).limit) == ("top1_drop", 1.0)


def test_undecided_says_how_many_images_would_do() -> None:
    verdict = judge(metrics(images=400, lost=4, gained=4), Budgets())

    assert verdict.images_needed == only(verdict).images_needed
    assert only(verdict).images_needed == pytest.approx(1350, rel=0.05)


def test_on_its_budget_no_number_of_images_is_promised() -> None:
    check = only(judge(metrics(images=400, lost=4), Budgets()))

    assert check.outcome == "undecided"
    assert check.images_needed is None


@pytest.mark.parametrize(
    ("images", "lost", "outcome"), [(98, 0, "undecided"), (99, 0, "passed"), (400, 3, "passed"),
                                    (400, 9, "undecided"), (400, 30, "failed")],
)  # fmt: skip
def test_agreement_without_truth(images: int, lost: int, outcome: str) -> None:
    verdict = judge(metrics(images=images, lost=lost, truth=False), Budgets(min_agreement=97))
    check = only(verdict)

    assert verdict.outcome == outcome
    assert check.measure == "agreement"
    below = stats.binom.sf(images - lost - 1, images, 0.97) <= 0.05
    above = stats.binom.cdf(images - lost, images, 0.97) <= 0.05
    assert outcome == ("passed" if below else "failed" if above else "undecided")


def test_all_must_pass_and_one_that_fails_fails_all() -> None:
    limits = {"max_drop": 5.0, "max_top5_drop": 5.0}
    passed = judge(metrics(images=400, lost=5), Budgets(**limits, min_agreement=96))
    open_ = judge(metrics(images=400, lost=5), Budgets(**limits, min_agreement=98.5))
    failed = judge(metrics(images=400, lost=5), Budgets(**limits, min_agreement=99.9))

    assert [passed.outcome, open_.outcome, failed.outcome] == ["passed", "undecided", "failed"]
    assert [check.measure for check in failed.checks] == ["top1_drop", "top5_drop", "agreement"]
    assert failed.checks[0].outcome == "passed"


def test_failing_is_shared_by_the_budgets_and_passing_is_not() -> None:
    found = metrics(images=400, lost=10, gained=0)
    one = judge(found, Budgets(max_drop=1.0)).checks[0]
    two = judge(found, Budgets(max_drop=1.0, max_ece_rise=50)).checks[0]

    assert one.upper == two.upper
    assert one.lower is not None
    assert two.lower is not None
    assert two.lower < one.lower


def test_looks_share_the_risk() -> None:
    found = metrics(images=299, lost=0)

    assert judge(found, Budgets()).outcome == "passed"
    assert judge(found, Budgets(looks=2)).outcome == "undecided"
    assert judge(metrics(images=370, lost=0), Budgets(looks=2)).outcome == "passed"
    assert 0.99**370 <= 0.025


def test_a_class_is_judged_from_the_number_that_can_show_it() -> None:
    verdict = judge(by_class((0, 0, 28), (0, 0, 500)), Budgets(max_drop=50, max_class_drop=10))
    check = verdict.checks[1]

    assert (check.classes_judged, check.classes_left_out, check.class_images) == (1, 1, 29)
    assert check.outcome == "passed"
    assert 0.9**29 <= 0.05 < 0.9**28


def test_no_class_with_enough_images_is_undecided() -> None:
    check = judge(by_class(*[(0, 0, 10)] * 20), Budgets(max_drop=50, max_class_drop=10)).checks[1]

    assert check.outcome == "undecided"
    assert check.classes_judged == 0
    assert check.images_needed == 580


def test_the_classes_that_lost_too_much_are_named_by_holm() -> None:
    quiet = [(1, 1, 60)] * 18
    check = judge(
        by_class((40, 0, 60), *quiet, (24, 1, 60)), Budgets(max_drop=50, max_class_drop=10)
    ).checks[1]

    assert check.outcome == "failed"
    assert check.classes_failed == (0, 19)
    assert check.class_index == 0


def test_one_class_of_many_may_look_bad_by_chance() -> None:
    """12 of 60 alone would fail a budget of 10 points; among 50 classes it does not."""
    alone = judge(by_class((12, 0, 60)), Budgets(max_drop=99, max_class_drop=10)).checks[1]
    among = judge(
        by_class((12, 0, 60), *[(0, 0, 60)] * 49), Budgets(max_drop=99, max_class_drop=10)
    ).checks[1]

    assert alone.outcome == "failed"
    assert among.outcome == "undecided"
    assert among.class_index == 0


def test_ece_needs_as_many_images_as_its_budget_can_be_shown_with() -> None:
    few = judge(metrics(images=148, lost=0), Budgets(max_ece_rise=2)).checks[1]
    enough = judge(metrics(images=149, lost=0), Budgets(max_ece_rise=2)).checks[1]

    assert few.measure == "ece_rise"
    assert (few.outcome, few.images_needed) == ("undecided", 149)
    assert enough.outcome == "passed"


def test_a_confident_candidate_that_is_wrong_fails_by_its_ece() -> None:
    check = judge(metrics(images=1000, lost=150), Budgets(max_drop=99, max_ece_rise=2)).checks[1]

    assert check.outcome == "failed"
    assert check.value == pytest.approx(15, abs=0.3)


@pytest.mark.parametrize("limits", [{"max_drop": -1}, {"max_drop": math.nan}, {"max_drop": 101},
                                    {"max_drop": 100}, {"max_class_drop": 100},
                                    {"min_agreement": 0}, {"confidence": 99.99999999},
                                    {"confidence": 99.999, "looks": 10},
                                    {"max_drop": 0}, {"min_agreement": -0.1},
                                    {"min_agreement": 100}, {"max_class_drop": 0},
                                    {"max_ece_rise": 200}, {"confidence": 50},
                                    {"confidence": 100}, {"looks": 0}, {"looks": 11}])  # fmt: skip
def test_limits_out_of_range(limits: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="must lie"):
        judge(metrics(images=1, lost=0), Budgets(**limits))  # type: ignore[arg-type]


def test_without_truth_the_drop_is_not_replaced_by_something_else() -> None:
    found = metrics(images=10, lost=0, truth=False)
    with pytest.raises(UsageError, match=r"--truth FILE.*--min-agreement"):
        judge(found, Budgets())
    for name in ("max_drop", "max_top5_drop", "max_class_drop", "max_ece_rise"):
        with pytest.raises(UsageError, match="needs ground truth"):
            judge(found, Budgets(**{name: 5.0}, min_agreement=90))  # type: ignore[arg-type]


def test_top5_of_five_classes_says_nothing() -> None:
    with pytest.raises(UsageError, match="5 classes"):
        judge(msgspec.structs.replace(metrics(images=9, lost=0), classes=5),
              Budgets(max_top5_drop=1))  # fmt: skip


@given(st.integers(1, 500), st.data())
@settings(max_examples=8)
def test_every_outcome_is_one_of_three(images: int, data: st.DataObject) -> None:
    lost = data.draw(st.integers(0, min(images, 40)))
    gained = data.draw(st.integers(0, min(images - lost, 40)))
    verdict = judge(by_class((lost, gained, images)), Budgets(max_class_drop=5, min_agreement=95))
    outcomes = {check.outcome for check in verdict.checks}

    assert len(verdict.checks) == 3
    assert verdict.outcome == (
        "failed" if "failed" in outcomes else "passed" if outcomes == {"passed"} else "undecided"
    )


@pytest.mark.parametrize(("images", "discordance"), [(200, 0.05), (500, 0.04), (1000, 0.03)])
def test_wrong_verdicts_with_several_budgets_are_as_rare_as_stated(
    images: int, discordance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every budget is met exactly: the true drop is 2 points, the true agreement as budgeted."""
    # Bounds and plans decide nothing, and take most of the time.
    for name in ("upper_bound", "lower_bound", "_images_for", "images_for_share"):
        monkeypatch.setattr(gate, name, lambda *_, **__: 0)
    random, runs, drop = np.random.default_rng(3), 2000, 0.02
    cells = [(discordance + drop) / 2, (discordance - drop) / 2, 1 - discordance]
    samples, counts = np.unique(
        random.multinomial(images, cells, size=runs), axis=0, return_counts=True
    )
    budgets = Budgets(max_drop=2, max_top5_drop=2, min_agreement=100 * (1 - discordance))
    outcomes = [
        judge(msgspec.structs.replace(by_class((int(b), int(c), images)), classes=10), budgets)
        for b, c, _ in samples
    ]
    for outcome in ("passed", "failed"):
        wrong = int(counts @ np.asarray([found.outcome == outcome for found in outcomes]))
        # One standard error of 2,000 runs is 0.5 points; without a shared level it would be 8 %.
        assert wrong / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
