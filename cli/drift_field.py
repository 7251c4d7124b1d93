"""``edgecls drift --field``: what a server saw against the calibration of its bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .text import printable

if TYPE_CHECKING:
    from ..drift.field import FieldReport


def judge(
    bundles: tuple[str, ...], named: Path | None, source: str, *, max_shift: float,
    confidence: float, looks: int, timeout_s: float, as_json: bool,
) -> int:  # fmt: skip
    """Compare, print, and return the exit code."""
    from ..drift.budgets import Budgets
    from ..workflows.field import field_drift

    given = [*map(Path, bundles), *([named] if named else [])]
    if len(given) != 1:
        raise click.UsageError("--field takes one bundle: --bundle BUNDLE, the one that is served")
    budgets = Budgets(confidence=confidence, looks=looks)
    found = field_drift(given[0], source, max_shift=max_shift, budgets=budgets, timeout_s=timeout_s)
    if as_json:
        click.echo(found.to_json(), nl=False)
    else:
        _print(found, _labels(given[0]))
    return found.exit_code


def _labels(bundle: Path) -> tuple[str, ...] | None:
    from ..bundle import Bundle

    return Bundle(bundle).manifest.labels


def _print(found: FieldReport, labels: tuple[str, ...] | None) -> None:
    from rich.table import Table
    from rich.text import Text

    from ..drift.field_wording import HEADINGS, notes, row, sentence
    from .drift_output import COLOURS
    from .show import console

    out = console()
    out.print(
        f"{found.field_images:,} images of the field, {found.calibration_images:,} of the "
        "calibration\n"
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading in HEADINGS[::4] else "right")
    for check in found.checks:
        *cells, outcome = row(check)
        table.add_row(*cells, Text(outcome, style=COLOURS[check.outcome]))
    out.print(table)
    for note in (note for check in found.checks for note in notes(check, found, labels)):
        out.print(f"note: {printable(note)}", markup=False)
    out.print()
    out.print(f"[bold {COLOURS[found.outcome]}]{found.outcome}[/]")
    out.print(sentence(found))
