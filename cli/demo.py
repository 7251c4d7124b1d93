"""``edgecls demo``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .config import config_option
from .options import workstation

if TYPE_CHECKING:
    from ..workflows.demo import DemoResult


@click.command()
@config_option
@click.option(
    "-o", "--out", type=click.Path(file_okay=False, path_type=Path), default=Path("demo"),
    show_default=True,
)  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True)
def command(out: Path, seed: int) -> int:
    """Train LeNet-5 on digits, export it for every target, predict, and run the drift check."""
    with workstation():
        from ..workflows.demo import demo
    from .show import TerminalProgress

    result = demo(out, TerminalProgress(), seed=seed)
    _print(result)
    return result.exit_code


def _print(result: DemoResult) -> None:
    from rich.table import Table

    from .show import console, human_bytes

    out = console()
    first = result.rows[0].report
    out.print(
        f"LeNet-5 in torch: {first.summary().reference_top1:.2f} % of {first.metrics.images} "
        "unseen digits\n"
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in (
        "bundle",
        "size",
        "top-1",
        "drop at most",
        "agrees",
        "predict",
        "ran on",
        "gate",
    ):
        right = heading not in {"bundle", "ran on", "gate"}
        table.add_column(heading, justify="right" if right else "left", no_wrap=True)
    for row in result.rows:
        found, verdict = row.report.summary(), row.report.verdict
        bound = verdict.checks[0].upper
        colour = {"passed": "green", "failed": "red"}.get(verdict.outcome, "yellow")
        table.add_row(
            row.target,
            human_bytes(row.size_bytes),
            f"{found.candidate_top1:.2f} %",
            f"{bound:.2f} points",
            f"{found.agreement:.2f} %",
            f"{row.predict_ms:.2f} ms",
            row.backend + (" (simulated)" if row.simulated else ""),
            f"[{colour}]{verdict.outcome}[/]",
        )
    out.print(table)
    confidence = first.verdict.confidence
    out.print(
        f"\n[dim]drop at most: with confidence {confidence:g} %; a simulation's time is not the "
        "device's[/]"
    )
    times = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in result.seconds.items())
    out.print(f"[dim]{times}[/]")
    out.print(f"\nTry: edgecls inspect {result.rows[1].path}")
