"""A drift report as Markdown, for a pull request's summary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .report import DriftReport
from .wording import HEADINGS, assumption, check_notes, check_row, class_name, confidence, number

_FLIPS_SHOWN: Final = 50
_ESCAPES: Final = str.maketrans(
    {"|": r"\|", "`": r"\`", "<": "&lt;", "\n": " ", "\r": " ", "*": r"\*", "_": r"\_"}
)


def to_markdown(report: DriftReport) -> str:
    """Return the report as Markdown."""
    metrics, verdict = report.metrics, report.verdict
    rows = [check_row(check, report.labels) for check in verdict.checks]
    notes = [
        note
        for check in verdict.checks
        for note in check_notes(check, metrics.images, report.labels)
    ]
    lines = [
        f"# Drift: {verdict.outcome}",
        "",
        f"Candidate {plain(report.candidate)} ({plain(report.backends.get('candidate', '?'))}) "
        f"against reference {plain(report.reference)} "
        f"({plain(report.backends.get('reference', '?'))}), {metrics.images} images; "
        f"{plain(report.truth or 'no ground truth')}.",
        "",
        *_table(HEADINGS, rows),
        "",
        *(f"- {plain(note)}" for note in notes),
        *([f"- these numbers hold {assumption()}"] if verdict.outcome == "undecided" else []),
        *([""] if notes else []),
        f"Each bound of a true value holds with the verdict's {confidence(verdict)}.",
        "",
        *_accuracy_lines(report),
        *_difference_lines(report),
        *_flip_lines(report),
    ]
    if report.skipped:
        skipped = [(item.image, item.reason) for item in report.skipped]
        lines += [
            "",
            "## Images that could not be compared",
            "",
            *_table(("image", "why"), skipped),
        ]
    return "\n".join(lines) + "\n"


def _accuracy_lines(report: DriftReport) -> list[str]:
    found = report.summary()
    rows = [
        (name, *(number(found[f"{side}_{key}"]) + " %" for side in ("reference", "candidate")))
        for name, key in (("top-1", "top1"), ("top-5", "top5"), ("ECE", "ece"))
        if report.metrics.graded is not None
    ]
    lines = [*_table(("", "reference", "candidate"), rows), ""] if rows else []
    low, high = found["agreement_interval"]
    text = (
        f"Top-1 agreement {number(found['agreement'])} % (95 % interval {low:.2f} .. {high:.2f})."
    )
    graded = report.metrics.graded
    if graded is not None:
        text += (
            f" {graded.top1.only_reference} right answers were lost and "
            f"{graded.top1.only_candidate} gained (exact McNemar p = {found['mcnemar_p']:.2g})."
        )
    return [*lines, text, ""]


def _difference_lines(report: DriftReport) -> list[str]:
    found, summary = report.metrics.differences, report.summary()
    if found is None:
        return []
    header = ("difference", "median", "90 %", "99 %", "99.9 %")
    rows = [
        (name, *(f"{value:.3g}" for value in summary[key].values()))
        for name, key in (
            ("of a logit", "logit_difference"),
            ("of an image's probabilities", "probability_difference"),
        )
    ]
    return [
        f"Logits differ by {found.mean:.4g} on average and by {found.largest:.4g} at most, which "
        f"is {found.relative:.4g} of the largest.",
        "",
        *_table(header, rows),
        "",
    ]


def _flip_lines(report: DriftReport) -> list[str]:
    flips = report.metrics.flips
    if not flips:
        return ["No image changed its answer."]
    rows = [
        (
            flip.image,
            "-" if flip.truth is None else class_name(flip.truth, report.labels),
            f"{class_name(flip.reference, report.labels)} ({flip.reference_confidence:.2f})",
            f"{class_name(flip.candidate, report.labels)} ({flip.candidate_confidence:.2f})",
        )
        for flip in flips[:_FLIPS_SHOWN]
    ]
    changed = report.metrics.images - report.metrics.agreed
    lines = [f"## Images that changed their answer: {changed}, the worst first", ""]
    lines += _table(("image", "truth", "reference", "candidate"), rows)
    if changed > len(rows):
        lines += ["", f"The first {len(rows)}; the JSON report has {len(flips)}."]
    return lines


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *([plain(cell) for cell in row] for row in rows)]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def plain(text: str) -> str:
    """Return text that Markdown shows as it is: names of files and classes come from anywhere."""
    return text.replace("\\", "\\\\").translate(_ESCAPES)
