"""Checks in words, the same in every report."""

from __future__ import annotations

from typing import Final

from .budgets import Measure
from .gate import Check, Verdict
from .matrix import Pair
from .metrics import Differences
from .planning import POWER
from .report import DriftReport, Summary

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
    name = MEASURES[check.measure]
    if check.class_index is not None:
        name += f" ({class_name(check.class_index, labels)})"
    between = "-"
    if check.lower is not None and check.upper is not None:
        between = f"{number(check.lower)} .. {number(check.upper)}"
    return (name, number(check.value), between, budget(check), check.outcome)


def budget(check: Check) -> str:
    """Return a check's limit: "<= 1 points", ">= 97 %"."""
    return f">= {check.limit:g} %" if check.measure == "agreement" else f"<= {check.limit:g} points"


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
            f"{name}: judged {scope(check)}; {check.classes_left_out} have fewer than the "
            f"{check.class_images} images that can show it"
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


def scope(check: Check) -> str:
    """Return what share of the classes, of those with any image, a class check speaks of."""
    judged = check.classes_judged or 0
    every = judged + (check.classes_left_out or 0)
    return f"in the {judged} of {every} classes that have enough images"


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


def sentence(verdict: Verdict) -> str:
    """Return what a verdict says, for people who read nothing else."""
    sure = f"With {confidence(verdict)}"
    if verdict.outcome == "passed":
        limited = [scope(check) for check in verdict.checks if check.classes_left_out]
        within = f"; a single class is judged only {limited[0]}" if limited else ""
        return f"{sure}, the conversion costs less than every budget allows{within}."
    if verdict.outcome == "failed":
        broken = [MEASURES[check.measure] for check in verdict.checks if check.outcome == "failed"]
        return f"{sure}, the conversion costs more than a budget allows: {', '.join(broken)}."
    needed = verdict.images_needed
    more = (
        ""
        if needed is None
        else f" About {needed:,} images would decide every open check, {assumption()}."
    )
    return f"These images show neither that every budget is kept nor that one is broken.{more}"


def accuracy_rows(found: Summary) -> list[tuple[str, float, float]]:
    """Return what is measured, of the reference and of the candidate, in percent."""
    rows = (
        ("top-1", found.reference_top1, found.candidate_top1),
        ("top-5", found.reference_top5, found.candidate_top5),
        ("ECE", found.reference_ece, found.candidate_ece),
    )
    return [(name, a, b) for name, a, b in rows if a is not None and b is not None]


def difference_sentence(found: Differences) -> str:
    """Return how far the logits are apart."""
    share = "" if found.relative is None else f", which is {found.relative:.4g} of the largest"
    return (
        f"Logits differ by {found.mean:.4g} on average and by {found.largest:.4g} at most{share}."
    )


def latency_rows(report: DriftReport) -> list[tuple[str, str, str, str]]:
    """Return the side, the median, the 90 % quantile and the images of each side that was timed."""
    timed = report.latency or {}
    return [
        (
            f"{side}, {report.backends[side]}",
            f"{timed[side].median_ms:.2f} ms",
            f"{timed[side].p90_ms:.2f} ms",
            str(timed[side].images),
        )
        for side in ("reference", "candidate")
        if side in timed
    ]


def agreement(pair: Pair) -> str:
    """Return a pair's agreement with its interval."""
    return f"{pair.agreement:.2f} % ({pair.lower:.2f} .. {pair.upper:.2f})"


def number(value: float | None) -> str:
    """Return a value with two decimals, or a dash."""
    return "-" if value is None else f"{round(value, 2) + 0.0:.2f}"


def class_name(index: int, labels: tuple[str, ...] | None) -> str:
    """Return a class's index, with its name where known."""
    return str(index) if labels is None else f"{index} {labels[index]}"
