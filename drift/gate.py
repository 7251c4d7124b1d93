"""The verdict: whether what was lost stays within the budget. A point estimate, and labelled so.

It takes the measured drop for the true one. On few images that is a guess: one image of 400 is
0.25 points.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

import msgspec

from ..core.errors import UsageError
from .metrics import Metrics


class Check(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One measure against its limit.

    Attributes:
        value: "top1_drop" in percentage points, passed where it is at most ``limit``;
            "agreement" in percent, passed where it is at least ``limit``.
    """

    measure: Literal["top1_drop", "agreement"]
    value: float
    limit: float
    passed: bool


class Verdict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Passed where every check did."""

    outcome: Literal["passed", "failed"]
    checks: tuple[Check, ...]
    estimate: Literal["point"] = "point"

    @property
    def exit_code(self) -> int:
        """0 passed, 1 failed."""
        return 0 if self.outcome == "passed" else 1


def check_budget(max_drop: float, min_agreement: float | None, *, has_truth: bool) -> None:
    """Refuse a budget that cannot be judged, before any image is run.

    Raises:
        UsageError: A limit is out of range, or there is neither truth nor ``min_agreement``.
    """
    if not 0 <= max_drop <= 100:
        raise UsageError(f"--max-drop must lie in 0..100 points, found {max_drop}")
    if min_agreement is not None and not 0 <= min_agreement <= 100:
        raise UsageError(f"--min-agreement must lie in 0..100 percent, found {min_agreement}")
    if not has_truth and min_agreement is None:
        raise UsageError(
            "without ground truth the top-1 drop cannot be known; give --truth FILE, sort the "
            "images into class folders, or gate on agreement with --min-agreement PERCENT"
        )


def judge(
    metrics: Metrics, *, max_drop: float = 1.0, min_agreement: float | None = None
) -> Verdict:
    """Judge a comparison.

    Args:
        metrics: What was found.
        max_drop: The largest top-1 drop in percentage points, checked where there is truth.
        min_agreement: The smallest top-1 agreement in percent, checked where it is given.

    Raises:
        UsageError: A limit is out of range, or there is neither truth nor ``min_agreement``.
    """
    check_budget(max_drop, min_agreement, has_truth=metrics.accuracy is not None)
    checks = []
    if metrics.accuracy is not None and metrics.top1_drop is not None:
        lost = metrics.accuracy.only_reference - metrics.accuracy.only_candidate
        # Exact, so that a drop of 0.3 in 1000 images meets a budget of 0.3.
        passed = Fraction(100 * lost, metrics.images) <= Fraction(str(max_drop))
        checks.append(
            Check(measure="top1_drop", value=metrics.top1_drop, limit=max_drop, passed=passed)
        )
    if min_agreement is not None:
        passed = Fraction(100 * metrics.agreed, metrics.images) >= Fraction(str(min_agreement))
        checks.append(
            Check(measure="agreement", value=metrics.agreement, limit=min_agreement, passed=passed)
        )
    outcome: Literal["passed", "failed"] = (
        "passed" if all(check.passed for check in checks) else "failed"
    )
    return Verdict(outcome=outcome, checks=tuple(checks))
