"""The verdict: passed, failed or undecided, with the risk of a wrong one bounded.

Passed where every check passed, each at the full level alpha: whichever limit is exceeded in
truth, its own check passes with probability alpha at most (intersection-union test; Berger,
Technometrics 24 (1982) 295-300). Failed where one check failed, each at alpha / number of checks,
the classes of a class check sharing theirs by Holm's procedure (Scandinavian Journal of Statistics
6 (1979) 65-70): where every limit is kept, some check fails with probability alpha at most.
Undecided else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import msgspec

from .budgets import Budgets, Measure
from .metrics import Accuracy, ClassAccuracy, Graded, Metrics
from .paired import Paired, fewest_unchanged, lower_bound, p_above, p_below, upper_bound
from .planning import images_for_drop, images_for_share
from .proportion import exact_bounds, fewest_images
from .reliability import Reliability

Outcome = Literal["passed", "failed", "undecided"]


class Check(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One measure against its limit.

    Attributes:
        measure: Drops and the rise of the ECE in percentage points, at most ``limit``; agreement in
            percent of the images, at least ``limit``.
        limit: The budget.
        value: What was measured; of a class check, in the class that decides it.
        lower: The true value lies above, at the level of the verdict that it could give.
        upper: The true value lies below, likewise.
        outcome: Passed where the bound on the limit's far side is within it.
        images_needed: How many images in all would decide it with probability 80 %, if the true
            value is the measured one (a drop below 0 is taken for 0) and answers change as often as
            here; None where it is decided, or where no number would do.
        class_index: The class that decides a class check.
        classes_failed: The classes that are shown to have lost more than the limit.
        classes_judged: How many classes have enough images.
        classes_left_out: How many have not, of those with any.
        class_images: The fewest that are enough.
    """

    measure: Measure
    limit: float
    value: float | None
    lower: float | None
    upper: float | None
    outcome: Outcome
    images_needed: int | None = None
    class_index: int | None = None
    classes_failed: tuple[int, ...] | None = None
    classes_judged: int | None = None
    classes_left_out: int | None = None
    class_images: int | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The outcome of all checks, each with the confidence in percent and the number of looks."""

    outcome: Outcome
    confidence: float
    looks: int
    checks: tuple[Check, ...]

    @property
    def exit_code(self) -> int:
        """0 passed, 1 failed, 5 undecided."""
        return {"passed": 0, "failed": 1, "undecided": 5}[self.outcome]

    @property
    def images_needed(self) -> int | None:
        """How many images would decide every check that is open; None where none is known."""
        needed = [check.images_needed for check in self.checks if check.outcome == "undecided"]
        known = [count for count in needed if count is not None]
        return max(known) if known and len(known) == len(needed) else None


def judge(metrics: Metrics, budgets: Budgets) -> Verdict:
    """Judge a comparison.

    Raises:
        UsageError: A limit is out of range or cannot be judged, or there is none.
    """
    graded = metrics.graded
    budgets = budgets.checked(has_truth=graded is not None, classes=metrics.classes)
    alpha = budgets.alpha
    shared = alpha / len(budgets.judged)
    checks: list[Check] = []
    if budgets.min_agreement is not None:
        checks.append(
            check_share(metrics.agreed, metrics.images, budgets.min_agreement, alpha, shared)
        )
    if graded is not None:
        checks = [*_graded_checks(graded, budgets, alpha, shared), *checks]
    return Verdict(
        outcome=combined([check.outcome for check in checks]),
        confidence=budgets.confidence,
        looks=budgets.looks,
        checks=tuple(checks),
    )


def combined(checks: Sequence[Outcome]) -> Outcome:
    """Return failed where a check failed, passed where all passed, else undecided."""
    outcomes = set(checks)
    if "failed" in outcomes:
        return "failed"
    return "passed" if outcomes == {"passed"} else "undecided"


def check_share(agreed: int, images: int, limit: float, alpha: float, shared: float) -> Check:
    """Judge the share of images with the same answer.

    Args:
        agreed: Images with the same answer.
        images: All of them.
        limit: The smallest agreement, percent.
        alpha: The level at which it may pass.
        shared: The level at which it may fail.
    """
    lower, _ = exact_bounds(agreed, images, alpha)
    _, upper = exact_bounds(agreed, images, shared)
    budget, share = limit / 100, agreed / images
    outcome: Outcome = "passed" if lower > budget else "failed" if upper < budget else "undecided"
    needed = None
    if outcome == "undecided":
        needed = (
            images_for_share(budget, alpha=alpha, share=share)
            if share > budget
            else images_for_share(1 - budget, alpha=shared, share=1 - share)
        )
    return Check(
        measure="agreement", limit=limit, value=100 * share, lower=100 * lower,
        upper=100 * upper, outcome=outcome, images_needed=_more(needed, images),
    )  # fmt: skip


def _graded_checks(graded: Graded, budgets: Budgets, alpha: float, shared: float) -> list[Check]:
    checks = []
    if budgets.max_drop is not None:
        checks.append(_check_drop("top1_drop", graded.top1, budgets.max_drop, alpha, shared))
    if budgets.max_top5_drop is not None:
        checks.append(_check_drop("top5_drop", graded.top5, budgets.max_top5_drop, alpha, shared))
    if budgets.max_class_drop is not None:
        checks.append(_check_classes(graded, budgets.max_class_drop, alpha, shared))
    if budgets.max_ece_rise is not None:
        checks.append(_check_rise(graded.reliability, budgets.max_ece_rise, alpha, shared))
    return checks


def _check_drop(
    measure: Measure, found: Accuracy, limit: float, alpha: float, shared: float
) -> Check:
    counts, budget = found.paired, limit / 100
    outcome = _outcome(p_below(counts, budget), p_above(counts, budget), alpha, shared)
    return Check(
        measure=measure,
        limit=limit,
        value=found.drop,
        lower=100 * lower_bound(counts, shared, budget),
        upper=100 * upper_bound(counts, alpha, budget),
        outcome=outcome,
        images_needed=_images_for(counts, budget, alpha, shared, outcome),
    )


def _outcome(below: float, above: float, alpha: float, shared: float) -> Outcome:
    return "passed" if below <= alpha else "failed" if above <= shared else "undecided"


def _images_for(
    counts: Paired, budget: float, alpha: float, shared: float, outcome: Outcome
) -> int | None:
    if outcome != "undecided":
        return None
    changed = (counts.lost + counts.gained) / counts.images
    if counts.drop < budget:
        needed = images_for_drop(
            budget, alpha=alpha, discordance=changed, drop=max(counts.drop, 0.0)
        )
    else:
        needed = images_for_drop(-budget, alpha=shared, discordance=changed, drop=-counts.drop)
    return _more(needed, counts.images)


def _more(needed: int | None, images: int) -> int | None:
    """A number above the present one: chance alone left it undecided."""
    return None if needed is None else max(needed, images + 1)


def _check_classes(graded: Graded, limit: float, alpha: float, shared: float) -> Check:
    """Judge every class on which the limit can be shown to hold at all."""
    budget = limit / 100
    fewest = fewest_unchanged(budget, alpha)
    judged = [found for found in graded.classes if found.images >= fewest]
    left_out = len(graded.classes) - len(judged)
    total = graded.top1.images
    if not judged:
        largest = max(found.images for found in graded.classes)
        return Check(
            measure="class_drop", limit=limit, value=None, lower=None, upper=None,
            outcome="undecided", images_needed=math.ceil(total * fewest / largest),
            classes_failed=(), classes_judged=0, classes_left_out=left_out,
            class_images=fewest,
        )  # fmt: skip
    failed = _holm(judged, budget, shared)
    if failed:
        decides = failed[0]
    else:
        decides = max(judged, key=lambda found: (p_below(found.paired, budget), -found.index))
    counts, level = decides.paired, shared / len(judged)
    outcome: Outcome = (
        "failed" if failed else "passed" if p_below(counts, budget) <= alpha else "undecided"
    )
    needed = _images_for(counts, budget, alpha, level, outcome)
    return Check(
        measure="class_drop",
        limit=limit,
        value=decides.drop,
        lower=100 * lower_bound(counts, level, budget),
        upper=100 * upper_bound(counts, alpha, budget),
        outcome=outcome,
        # The other classes grow with it.
        images_needed=None if needed is None else math.ceil(total * needed / counts.images),
        class_index=decides.index,
        classes_failed=tuple(found.index for found in failed),
        classes_judged=len(judged),
        classes_left_out=left_out,
        class_images=fewest,
    )


def _holm(classes: Sequence[ClassAccuracy], budget: float, level: float) -> list[ClassAccuracy]:
    """Return the classes that lost more than the budget, the surest first."""
    ranked = sorted(classes, key=lambda found: (p_above(found.paired, budget), found.index))
    failed = []
    for place, found in enumerate(ranked):
        if p_above(found.paired, budget) > level / (len(ranked) - place):
            break
        failed.append(found)
    return failed


def _check_rise(found: Reliability, limit: float, alpha: float, shared: float) -> Check:
    budget, rise, images = limit / 100, found.rise, found.images
    lower, upper = found.lower_bound(shared), found.upper_bound(alpha)
    fewest = fewest_images(budget, alpha)
    outcome: Outcome = "undecided"
    needed = None
    if images >= fewest:
        outcome = "passed" if upper < budget else "failed" if lower > budget else "undecided"
    if outcome == "undecided" and rise != budget:
        # A bound comes nearer with the root of the number of images.
        ratio = ((upper if rise < budget else lower) - rise) / (budget - rise)
        needed = _more(max(fewest, math.ceil(images * ratio**2)), images)
    return Check(
        measure="ece_rise", limit=limit, value=100 * rise, lower=100 * lower,
        upper=100 * upper, outcome=outcome, images_needed=needed,
    )  # fmt: skip
