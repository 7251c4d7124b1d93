"""What ``edgecls drift`` prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from .text import print_json, printable

if TYPE_CHECKING:
    from rich.text import Text

    from ..drift.baseline import Baseline
    from ..drift.budgets import Budgets
    from ..drift.matrix import Matrix
    from ..drift.planning import Planned
    from ..drift.report import DriftReport, Skipped

_FLIPS_SHOWN: Final = 10
COLOURS: Final = {"passed": "green", "failed": "red", "undecided": "yellow"}


def print_report(report: DriftReport) -> None:
    """Print the verdict of one comparison."""
    from rich.table import Table

    from ..drift.wording import (
        HEADINGS,
        accuracy_rows,
        assumption,
        check_notes,
        check_row,
        confidence,
        latency_rows,
        number,
        sentence,
    )  # fmt: skip
    from .show import console

    out = console()
    metrics, found = report.metrics, report.summary()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("", "top-1", "top-5", "ECE", "runs on"):
        right = heading in {"top-1", "top-5", "ECE"}
        table.add_column(heading, justify="right" if right else "left")
    rows = accuracy_rows(found)
    sides = {"reference": [row[1] for row in rows], "candidate": [row[2] for row in rows]}
    for side, values in sides.items():
        shown = [f"{number(value)} %" for value in values] or ["-"] * 3
        table.add_row(side, *shown, _text(report.backends[side]))
    out.print(table)
    low, high = found.agreement_interval
    out.print(
        f"\n{metrics.images} images, agreement {metrics.agreement:.2f} % "
        f"(95 % interval {low:.2f} .. {high:.2f})"
    )
    if metrics.graded is not None:
        top1 = metrics.graded.top1
        out.print(
            f"right answers: {top1.only_reference} lost, {top1.only_candidate} gained "
            f"(McNemar p = {found.mcnemar_p:.2g})"
        )
    if metrics.differences is not None and found.logit_difference is not None:
        out.print(
            f"logits differ by {metrics.differences.mean:.3g} (mean), "
            f"{found.logit_difference['99']:.3g} (99 %), {metrics.differences.largest:.3g} (max)"
        )
    for name, middle, high_, images in latency_rows(report):
        out.print(
            f"{printable(name)}: {middle} an image (median of {images}; 90 %: {high_})",
            markup=False,
        )
    _print_flips(report)
    _print_skipped(report.skipped)
    out.print()
    checks = Table(box=None, pad_edge=False, header_style="bold")
    for place, heading in enumerate(HEADINGS):
        checks.add_column(heading, justify="right" if place in {1, 2, 3} else "left", no_wrap=True)
    for check in report.verdict.checks:
        *cells, outcome = check_row(check, report.labels)
        checks.add_row(*map(_text, cells), f"[{COLOURS[outcome]}]{outcome}[/]")
    out.print(checks)
    for check in report.verdict.checks:
        for note in check_notes(check, metrics.images, report.labels):
            out.print(printable(note), markup=False)
    outcome = report.verdict.outcome
    if outcome == "undecided":
        out.print(f"(numbers of images {assumption()})")
    out.print(f"[bold {COLOURS[outcome]}]{outcome}[/] ({confidence(report.verdict)})")
    if outcome != "undecided":
        out.print(sentence(report.verdict), markup=False)


def print_matrix(found: Matrix, *, as_json: bool) -> None:
    """Print every pair's agreement."""
    from rich.table import Table

    from ..drift.wording import agreement
    from .show import console

    if as_json:
        click.echo(found.to_json(), nl=False)
        return
    out = console()
    pairs = {(pair.first, pair.second): pair for pair in found.pairs}
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("", "", *(str(place + 1) for place in range(1, len(found.sources)))):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for row, (name, backend) in enumerate(zip(found.sources, found.backends, strict=True)):
        cells = []
        for column in range(1, len(found.sources)):
            pair = pairs.get((row, column))
            cells.append(agreement(pair) if pair else "")
        table.add_row(str(row + 1), _text(f"{name}, {backend}"), *cells)
    out.print(table)
    out.print(f"\nsame top-1 answer on {found.images} images, with 95 % intervals (Wilson)")
    _print_skipped(found.skipped)


def print_saved(made: Baseline, path: Path, skipped: Sequence[Skipped], *, as_json: bool) -> None:
    """Say what a baseline holds."""
    import json

    right = [kept.top1 == kept.truth for kept in made.images.values() if kept.truth is not None]
    top1 = 100 * sum(right) / len(right) if right else None
    if as_json:
        found = {"baseline": str(path), "images": len(made.images), "top1": top1}
        click.echo(json.dumps(found))
        return
    text = f"{len(made.images)} answers of {made.model} ({made.backend}) -> {path}"
    click.echo(printable(text if top1 is None else f"{text}; top-1 {top1:.2f} %"))
    _print_skipped(skipped)


def print_plan(
    rows: Sequence[Planned], budgets: Budgets, discordance: float, true_drop: float, *,
    as_json: bool,
) -> None:  # fmt: skip
    """Print the images that the budgets need."""
    from rich.table import Table

    from ..drift.planning import POWER
    from ..drift.wording import MEASURES
    from .show import console

    if as_json:
        found = {
            "discordance": discordance, "true_drop": true_drop, "power": 100 * POWER,
            "confidence": budgets.confidence, "looks": budgets.looks,
            "checks": rows,
        }  # fmt: skip
        print_json(found)
        return
    out = console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("check", "budget", "images"):
        table.add_column(heading, justify="left" if heading == "check" else "right")
    for row in rows:
        sign = ">=" if row.measure == "agreement" else "<="
        needed = "no number will do" if row.images is None else f"{row.images:,}"
        if row.measure == "class_drop" and row.images is not None:
            needed += " in each class"
        table.add_row(MEASURES[row.measure], f"{sign} {row.limit:g}", needed)
    out.print(table)
    looks = f", in each of {budgets.looks} looks" if budgets.looks > 1 else ""
    out.print(
        f"\nWith so many images a check passes with probability {100 * POWER:g} % at confidence "
        f"{budgets.confidence:g} %{looks},\nif the conversion really costs "
        f"{true_drop:g} points and {discordance:g} % of the answers change."
    )


def _text(content: str) -> Text:
    """Return text that is no markup: names of files and classes come from anywhere."""
    from rich.text import Text

    return Text(printable(content))


def _print_flips(report: DriftReport) -> None:
    from ..drift.wording import class_name
    from .show import console

    out, flips = console(), report.metrics.flips
    changed = report.metrics.images - report.metrics.agreed
    if not changed:
        return
    out.print(f"\n{changed} images changed their answer, the worst first:")
    for flip in flips[:_FLIPS_SHOWN]:
        sides = " -> ".join(
            f"{printable(class_name(index, report.labels))} ({confidence:.2f})"
            for index, confidence in (
                (flip.reference, flip.reference_confidence),
                (flip.candidate, flip.candidate_confidence),
            )
        )
        right = ""
        if flip.truth is not None:
            right = {flip.reference: ", right before", flip.candidate: ", right now"}.get(
                flip.truth, ", wrong twice"
            )
        out.print(f"  {printable(flip.image)}: {sides}{right}", markup=False)
    if changed > _FLIPS_SHOWN:
        out.print(f"  ... and {changed - _FLIPS_SHOWN} more")


def _print_skipped(skipped: Sequence[Skipped]) -> None:
    from .show import console

    if not skipped:
        return
    out = console()
    out.print(f"\n{len(skipped)} images could not be compared (exit code 4):")
    for item in skipped[:_FLIPS_SHOWN]:
        out.print(f"  {printable(item.image)}: {printable(item.reason)}", markup=False)
