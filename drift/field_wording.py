"""A comparison of the field with the calibration in words."""

from __future__ import annotations

from typing import Final

from .field import FieldCheck, FieldReport
from .wording import class_name, number

HEADINGS: Final = ("statistic", "distance", "true value", "budget", "outcome")


def row(check: FieldCheck) -> tuple[str, ...]:
    """Return a check's cells under ``HEADINGS``."""
    return (
        check.statistic, number(check.value), f"{number(check.lower)} .. {number(check.upper)}",
        f"<= {check.limit:g} points", check.outcome,
    )  # fmt: skip


def notes(check: FieldCheck, report: FieldReport, labels: tuple[str, ...] | None) -> list[str]:
    """Return what a check has to say beside its numbers: which way it moved, what would decide."""
    found = []
    if check.outcome == "failed":
        found.append(f"{check.statistic}: {_moved(check, labels)}")
    if check.outcome == "undecided":
        found.append(f"{check.statistic}: {_needed(check, report)}")
    return found


def sentence(report: FieldReport) -> str:
    """Return what the verdict says, for people who read nothing else."""
    sure = f"With confidence {report.confidence:g} %"
    if report.looks > 1:
        sure += f", shared by {report.looks} looks"
    if report.outcome == "passed":
        return f"{sure}, no statistic of the images has moved by more than the budget."
    if report.outcome == "failed":
        moved = ", ".join(c.statistic for c in report.checks if c.outcome == "failed")
        return f"{sure}, the images have moved away from the calibration's: {moved}."
    return "These images show neither that they are like the calibration's nor that they are not."


def _moved(check: FieldCheck, labels: tuple[str, ...] | None) -> str:
    if check.classes:
        shares = "; ".join(
            f"{class_name(share.class_index, labels)} {share.calibration:.1f} % -> "
            f"{share.field:.1f} %"
            for share in check.classes
        )
        return f"changed most: {shares}"
    digits = 3 if check.statistic == "confidence" else 1
    was, now = check.calibration_mean or 0.0, check.field_mean or 0.0
    return f"mean {was:.{digits}f} -> {now:.{digits}f}"


def _needed(check: FieldCheck, report: FieldReport) -> str:
    if check.images_needed is not None:
        return (
            f"about {check.images_needed:,} images of the field would decide it, if they go on "
            "like these"
        )
    if check.calibration_images_needed is not None:
        return (
            "no number of images of the field decides it beside "
            f"{report.calibration_images:,} of the calibration; about "
            f"{check.calibration_images_needed:,} of both would"
        )
    return "so near its budget that no number of images is known to decide it"
