"""``edgecls data``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from .config import config_option
from .text import printable_lines

if TYPE_CHECKING:
    from rich.console import Console

    from ..data.duplicates import Duplicates
    from ..data.inspection import DataReport, SplitReport

_DIR = click.Path(exists=True, path_type=Path)
_CLASSES_SHOWN: Final = 25
_LISTED: Final = 20
_BAR: Final = 24


@click.command()
@config_option
@click.argument("data", type=_DIR, metavar="DIR")
@click.option("--val", type=_DIR, help="Another data set, that DIR is validated with.")
@click.option(
    "--truth", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A table of file and label, CSV or JSON, for the images of DIR.",
)  # fmt: skip
@click.option(
    "--near/--no-near", default=True, show_default=True,
    help="Look for images that look the same; slow for more than 50,000.",
)  # fmt: skip
@click.option("--workers", type=click.IntRange(1, 256), default=2, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def command(
    data: Path, val: Path | None, truth: Path | None, near: bool, workers: int, as_json: bool
) -> int:
    """Say what is in a data set: counts, sizes, unreadable files, duplicates.

    DIR: a folder of images per class, or train and val folders of these; CIFAR's files, binary or
    python; MNIST's IDX files; or images with a table of labels.

    Exit code 0: nothing is wrong; 1: images are unreadable, stand in two classes or splits, or a
    class has none in a split; 4: it cannot be opened.
    """
    from ..core.errors import DataError
    from ..data.dataset import open_splits
    from ..data.inspection import inspect
    from .show import TerminalProgress

    splits = open_splits(data, labels=truth)
    if val is not None:
        if len(splits) > 1:
            raise DataError(f"{data}: has the splits {', '.join(splits)} already; leave --val out")
        (train,) = splits.values()
        others = open_splits(val, classes=train.classes)
        if len(others) > 1:
            raise DataError(f"{val}: has the splits {', '.join(others)}; name one of them")
        splits = {"train": train, "val": next(iter(others.values()))}
    progress = TerminalProgress(quiet=as_json)
    report = inspect(str(data), splits, progress, near=near, workers=workers)
    if as_json:
        click.echo(report.to_json(), nl=False)
    else:
        _show(report)
    return 1 if report.faults else 0


def _show(report: DataReport) -> None:
    from rich.table import Table

    from .show import console

    out = console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for split in report.splits:
        table.add_column(split or "all", justify="right")
    parts = list(report.splits.values())
    table.add_row("images", *(str(part.images) for part in parts))
    table.add_row("unreadable", *(str(len(part.unreadable)) for part in parts))
    for side in ("width", "height"):
        table.add_row(f"{side} in px", *(_sides(part, side) for part in parts))
    table.add_row("sizes", *(_counted(part.sizes) for part in parts))
    table.add_row("modes", *(_counted(part.modes) for part in parts))
    table.add_row("formats", *(_counted(part.formats) for part in parts))
    out.print(table)
    out.print()
    _show_classes(out, report)
    for name, part in report.splits.items():
        where = f" in {name}" if name else ""
        rows = [(bad.image, bad.reason) for bad in part.unreadable]
        _listed(out, f"unreadable{where}", rows)
    _show_duplicates(out, "the same bytes", report.duplicates)
    _show_duplicates(out, "the same picture", report.near_duplicates or ())
    out.print()
    for fault in report.faults:
        out.print(f"[bold red]fault[/] {_safe(fault)}")
    for remark in report.remarks:
        out.print(f"[yellow]note[/]  {_safe(remark)}")
    if not report.faults:
        out.print("[bold green]no faults[/]")


def _show_classes(out: Console, report: DataReport) -> None:
    from rich.table import Table

    splits = list(report.splits.values())
    totals = [sum(counts) for counts in zip(*(split.counts for split in splits), strict=True)]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("class", overflow="fold", max_width=40)
    for name in report.splits:
        table.add_column(name or "images", justify="right")
    table.add_column("")
    shown = list(range(len(totals)))
    if len(totals) > _CLASSES_SHOWN:
        ranked = sorted(shown, key=lambda index: (totals[index], index))
        shown = [*ranked[: _CLASSES_SHOWN // 2], *ranked[-_CLASSES_SHOWN // 2 :]]
    for index in shown:
        bar = "█" * round(_BAR * totals[index] / max(totals))
        counts = (str(split.counts[index]) for split in splits)
        table.add_row(_safe(report.classes[index]), *counts, f"[cyan]{bar}[/]")
    out.print(table)
    if len(totals) > _CLASSES_SHOWN:
        out.print(f"the smallest and the largest of {len(totals)} classes; --json has all")


def _show_duplicates(out: Console, title: str, groups: Sequence[Duplicates]) -> None:
    words = {"splits": "across splits", "classes": "across classes", "none": "in one class"}
    rows = [
        (words[group.across], ", ".join(member.name for member in group.images)) for group in groups
    ]
    _listed(out, title, rows)


def _listed(out: Console, title: str, rows: Sequence[tuple[str, str]]) -> None:
    from rich.table import Table

    if not rows:
        return
    out.print(f"\n[bold]{title}[/]: {len(rows)}")
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    for row in rows[:_LISTED]:
        table.add_row(*map(_safe, row))
    out.print(table)
    if len(rows) > _LISTED:
        out.print(f"and {len(rows) - _LISTED} more; --json has all")


def _sides(split: SplitReport, side: str) -> str:
    found = split.width if side == "width" else split.height
    if found is None:
        return "-"
    if found.smallest == found.largest:
        return str(found.smallest)
    return f"{found.smallest} to {found.largest}, median {found.median:g}"


def _counted(counts: dict[str, int]) -> str:
    first = [f"{name}: {count}" for name, count in list(counts.items())[:3]]
    return ", ".join(first) + (", ..." if len(counts) > 3 else "")


def _safe(text: str) -> str:
    from rich.markup import escape

    return escape(printable_lines(text))
