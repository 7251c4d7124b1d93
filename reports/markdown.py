"""Reports as Markdown, for a pull request's summary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..drift.explanation import Explanation
from ..drift.explanation_wording import (
    COSTS_EXPLAINED,
    LAYER_HEADINGS,
    blame_sentence,
    cost_cells,
    explained,
    layer_cells,
    layers_heading,
)  # fmt: skip
from ..drift.matrix import Matrix
from ..drift.report import DriftReport
from ..drift.wording import (
    HEADINGS,
    accuracy_rows,
    agreement,
    assumption,
    check_notes,
    check_row,
    class_name,
    confidence,
    difference_sentence,
    latency_rows,
    number,
    sentence,
)  # fmt: skip
from .escaping import plain, plain_line

_FLIPS_SHOWN: Final = 50


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
        *([] if verdict.outcome == "undecided" else [plain(sentence(verdict)), ""]),
        f"Candidate {plain(report.candidate)} ({plain(report.backends.get('candidate', '?'))}) "
        f"against reference {plain(report.reference)} "
        f"({plain(report.backends.get('reference', '?'))}), {metrics.images} images; "
        f"{plain(report.truth or 'no ground truth')}.",
        "",
        *table_lines(HEADINGS, rows),
        "",
        *(f"- {plain_line(note)}" for note in notes),
        *([f"- these numbers hold {assumption()}"] if verdict.outcome == "undecided" else []),
        *([""] if notes else []),
        f"Each bound of a true value holds with the verdict's {confidence(verdict)}.",
        "",
        *_accuracy_lines(report),
        *_difference_lines(report),
        *_latency_lines(report),
        *_flip_lines(report),
    ]
    if report.skipped:
        skipped = [(item.image, item.reason) for item in report.skipped]
        lines += [
            "",
            "## Images that could not be compared",
            "",
            *table_lines(("image", "why"), skipped),
        ]
    return "\n".join(lines) + "\n"


def matrix_to_markdown(found: Matrix) -> str:
    """Return every pair's agreement as Markdown."""
    pairs = {(pair.first, pair.second): pair for pair in found.pairs}
    places = range(len(found.sources))
    rows = []
    for row, (name, backend) in enumerate(zip(found.sources, found.backends, strict=True)):
        cells = [pairs.get((row, column)) for column in places[1:]]
        rows.append(
            (f"{row + 1}. {name}, {backend}", *(agreement(pair) if pair else "" for pair in cells))
        )
    lines = [
        f"# Agreement on {found.images} images",
        "",
        "Images with the same top-1 answer, with 95 % intervals (Wilson).",
        "",
        *table_lines(("", *(str(place + 1) for place in places[1:])), rows),
    ]
    if found.skipped:
        skipped = [(item.image, item.reason) for item in found.skipped]
        lines += ["", "## Images that could not be compared", ""]
        lines += table_lines(("image", "why"), skipped)
    return "\n".join(lines) + "\n"


def explanation_to_markdown(found: Explanation) -> str:
    """Return where a drop comes from as Markdown."""
    rows: list[tuple[str, ...]] = [
        (
            stage.stage, stage.expected, stage.found, *cost_cells(stage.cost),
            "" if stage.alone is None else number(stage.alone.points),
            "yes" if stage in found.blamed else "no",
        )
        for stage in found.stages
    ]  # fmt: skip
    rows.append(("all", "", "", *cost_cells(found.total), "", ""))
    lines = [
        "# Where the drop comes from",
        "",
        plain_line(f"{explained(found)} {blame_sentence(found)}"),
        "",
        *table_lines(("stage", "expected", "found", "costs", "true cost", "alone", "shown"), rows),
        "",
        COSTS_EXPLAINED,
    ]
    if found.same:
        lines += ["", f"No difference in: {plain(', '.join(found.same))}."]
    if found.layers:
        cells = [(layer.name, layer.operator, *layer_cells(layer)) for layer in found.layers]
        lines += ["", f"## {layers_heading(found)}", "", *table_lines(LAYER_HEADINGS, cells)]
    lines += [""] * bool(found.notes) + [f"- {plain_line(note)}" for note in found.notes]
    return "\n".join(lines) + "\n"


def _accuracy_lines(report: DriftReport) -> list[str]:
    found = report.summary()
    rows = [
        (name, f"{number(reference)} %", f"{number(candidate)} %")
        for name, reference, candidate in accuracy_rows(found)
    ]
    lines = [*table_lines(("", "reference", "candidate"), rows), ""] if rows else []
    low, high = found.agreement_interval
    text = f"Top-1 agreement {number(found.agreement)} % (95 % interval {low:.2f} .. {high:.2f})."
    graded = report.metrics.graded
    if graded is not None:
        lost = graded.top1.only_reference
        text += (
            f" {lost} right {'answer was' if lost == 1 else 'answers were'} lost and "
            f"{graded.top1.only_candidate} gained (exact McNemar p = {found.mcnemar_p:.2g})."
        )
    return [*lines, text, ""]


def _difference_lines(report: DriftReport) -> list[str]:
    found, summary = report.metrics.differences, report.summary()
    if found is None:
        return []
    header = ("difference", "median", "90 %", "99 %", "99.9 %")
    rows = [
        (name, *(f"{value:.3g}" for value in values.values()))
        for name, values in (
            ("of a logit", summary.logit_difference),
            ("of an image's probabilities", summary.probability_difference),
        )
        if values is not None
    ]
    return [
        difference_sentence(found),
        "",
        *table_lines(header, rows),
        "",
    ]


def _latency_lines(report: DriftReport) -> list[str]:
    rows = latency_rows(report)
    if not rows:
        return []
    return [*table_lines(("time of one image", "median", "90 %", "images"), rows), ""]


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
    lines += table_lines(("image", "truth", "reference", "candidate"), rows)
    if changed > len(rows):
        lines += ["", f"The first {len(rows)}; the JSON report has {len(flips)}."]
    return lines


def table_lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table's lines, its cells escaped."""
    lines = [header, ["---"] * len(header), *([plain(cell) for cell in row] for row in rows)]
    return ["| " + " | ".join(cells) + " |" for cells in lines]
