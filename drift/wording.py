"""Checks in words, the same in every report."""

from __future__ import annotations

from typing import Final

from .budgets import Measure
from .gate import Check, Verdict
from .planning import POWER

MEASURES: Final[dict[Measure, str]] = {
    "top1_drop": "top-1 drop",
    "top5_drop": "top-5 drop",
    "agreement": "top-1 agreement",
    "class_drop": "largest class drop",
    "ece_rise": "rise of the ECE",
}
HEADINGS: Final = ("check", "measured", "true value", "budget", "outcome")


def check_row(check: Check, labels: tuple[str, ...] | None) -> tuple[str, ...]:
    """Return a check's cells under ``HEADINGS``."""
    agreement = check.measure == "agreement"
    unit, sign = ("%", ">=") if agreement else ("points", "<=")
    name = MEASURES[check.measure]
    if check.class_index is not None:
        name += f" ({class_name(check.class_index, labels)})"
    between = "-"
    if check.lower is not None and check.upper is not None:
        between = f"{number(check.lower)} .. {number(check.upper)}"
    return (name, number(check.value), between, f"{sign} {check.limit:g} {unit}", check.outcome)


def check_notes(check: Check, images: int, labels: tuple[str, ...] | None) -> list[str]:
    """Return what a check has to say beside its numbers."""
    notes = []
    name = MEASURES[check.measure]
    if check.classes_failed:
        failed = ", ".join(class_name(index, labels) for index in check.classes_failed[:10])
        more = len(check.classes_failed) - 10
        notes.append(f"{name}: above the budget: {failed}" + (f" and {more} more" * (more > 0)))
    if check.classes_left_out:
        notes.append(
            f"{name}: {check.classes_judged} classes judged; {check.classes_left_out} have "
            f"fewer than the {check.class_images} images that can show it"
        )
    if check.outcome != "undecided":
        return notes
    if check.images_needed is None:
        notes.append(f"{name}: so near its budget that no number of images is known to decide it")
    else:
        notes.append(
            f"{name}: about {check.images_needed:,} images would decide it "
            f"({check.images_needed - images:,} more)"
        )
    return notes


def assumption() -> str:
    """Return what the numbers of images rest on."""
    return (
        f"with probability {100 * POWER:g} %, if the true value is the measured one (a gain counts "
        "as 0) and answers change as often as here"
    )


def confidence(verdict: Verdict) -> str:
    """Return the verdict's risk in a sentence."""
    text = f"confidence {verdict.confidence:g} %"
    if verdict.looks > 1:
        text += f", shared by {verdict.looks} looks"
    return text


def number(value: float | None) -> str:
    """Return a value with two decimals, or a dash."""
    return "-" if value is None else f"{round(value, 2) + 0.0:.2f}"


def class_name(index: int, labels: tuple[str, ...] | None) -> str:
    """Return a class's index, with its name where known."""
    return str(index) if labels is None else f"{index} {labels[index]}"
