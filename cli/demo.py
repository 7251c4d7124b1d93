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
    return 0 if result.passed else 1


def _print(result: DemoResult) -> None:
    from rich.table import Table

    from .show import console, human_bytes

    out = console()
    metrics = result.rows[0].report.metrics
    out.print(
        f"LeNet-5 in torch: {metrics.reference_top1:.2f} % of {metrics.images} unseen digits\n"
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("bundle", "size", "top-1", "agrees", "predict", "ran on", "gate"):
        right = heading not in {"bundle", "ran on", "gate"}
        table.add_column(heading, justify="right" if right else "left", no_wrap=True)
    for row in result.rows:
        found = row.report.metrics
        outcome = row.report.verdict.outcome
        table.add_row(
            row.target,
            human_bytes(row.size_bytes),
            f"{found.candidate_top1:.2f} %",
            f"{found.agreement:.2f} %",
            f"{row.predict_ms:.2f} ms",
            row.backend + (" (simulated)" if row.simulated else ""),
            f"[{'green' if outcome == 'passed' else 'red'}]{outcome}[/]",
        )
    out.print(table)
    out.print("\n[dim]the gate is a point estimate; a simulation's time is not the device's[/]")
    times = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in result.seconds.items())
    out.print(f"[dim]{times}[/]")
    out.print(f"\nTry: edgecls inspect {result.rows[1].path}")
