"""``edgecls bench compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .text import print_json, printable

if TYPE_CHECKING:
    from ..devices.bench.compare import Comparison, Ratio

_FILE = click.Path(path_type=Path)


@click.command()
@click.argument("first", type=_FILE)
@click.argument("second", type=_FILE)
@click.option(
    "--max-loss", type=float, default=5.0, show_default=True, metavar="PERCENT",
    help="By how much SECOND may be slower.",
)  # fmt: skip
@click.option(
    "--confidence", type=float, default=95.0, show_default=True, metavar="PERCENT",
    help="Of the interval of the ratio.",
)  # fmt: skip
@click.option(
    "--stage", default="total", show_default=True,
    help="What is judged: total, decode, preprocess, inference or postprocess.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def command(
    first: Path, second: Path, max_loss: float, confidence: float, stage: str, as_json: bool
) -> int:
    """Say whether SECOND is slower than FIRST; both are files of bench -o, of the same bundle.

    Exit code 0: it is slower by less than --max-loss; 1: by more; 5: more --processes, or a
    machine that is not busy, would decide; 4: the files cannot be compared.
    """
    from ..devices.bench.compare import compare
    from ..devices.bench.result import read_result

    found = compare(
        read_result(first), read_result(second), max_loss=max_loss, confidence=confidence,
        stage=stage,
    )  # fmt: skip
    if as_json:
        print_json(found)
    else:
        _show(found)
    return found.exit_code


def _show(found: Comparison) -> None:
    from rich.table import Table

    from .show import console

    out = console()
    for difference in found.differences:
        out.print(f"note: they differ: {printable(difference)}", markup=False)
    for doubt in found.doubts:
        out.print(f"note: {doubt}", markup=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("", "second / first", f"{found.confidence:g} % interval"):
        table.add_column(heading, justify="right" if heading else "left")
    for stage, ratio in found.ratios.items():
        table.add_row(stage, f"{ratio.value:.3f}", _interval(ratio))
    out.print(table)
    colour = {"passed": "green", "failed": "red", "undecided": "yellow"}[found.outcome]
    out.print(f"\n[bold {colour}]{found.outcome}[/]")
    limit = f"{found.max_loss:g} % that {found.stage} may lose"
    text = {
        "passed": f"the interval lies below the {limit}",
        "failed": f"the interval lies above the {limit}",
        "undecided": f"the interval holds the {limit}; more --processes would decide",
    }[found.outcome]
    if found.ratio.low is None:
        text = "so few processes give no interval; measure with more --processes"
    if found.doubts:
        text = "a busy machine decides nothing; stop other programs, and measure again"
    out.print(text)


def _interval(ratio: Ratio) -> str:
    return "-" if ratio.low is None else f"{ratio.low:.3f} .. {ratio.high:.3f}"
