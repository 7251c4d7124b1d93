"""``edgecls calibrate diff``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..core.errors import CheckFailedError
from .options import workstation
from .text import print_json

if TYPE_CHECKING:
    from ..core.ranges import Range

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("first", type=_FILE)
@click.argument("second", type=_FILE)
@click.option("--top", type=click.IntRange(1), default=20, show_default=True, help="How many.")
@click.option(
    "--max-difference", type=click.FloatRange(0), metavar="PERCENT",
    help="Exit with 1 where a tensor differs by more.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def command(
    first: Path, second: Path, top: int, max_difference: float | None, as_json: bool
) -> None:
    """Say which tensors' ranges differ most between the tables FIRST and SECOND.

    Either may be a TensorRT calibration cache. A difference is the larger distance of the two ends
    in percent of the wider range.
    """
    from rich.table import Table

    from .show import console
    from .text import printable

    with workstation():
        from ..calibration.difference import compare_ranges

    differences, single = compare_ranges(*_alike(first, second))
    most = 100 * differences[0].relative
    if as_json:
        found = {
            "largest_percent": most,
            "only_in_one": list(single),
            "tensors": [
                {"tensor": d.tensor, "percent": 100 * d.relative,
                 "first": [d.first.lo, d.first.hi], "second": [d.second.lo, d.second.hi]}
                for d in differences
            ],
        }  # fmt: skip
        print_json(found)
    else:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("tensor")
        for heading in ("difference", str(first), str(second)):
            table.add_column(printable(heading), justify="right")
        for d in differences[:top]:
            table.add_row(
                printable(d.tensor), f"{100 * d.relative:.2f} %", _text(d.first), _text(d.second)
            )
        console().print(table)
        if single:
            click.echo(f"only in one of them: {', '.join(map(printable, single))}")
    if max_difference is not None and single:
        raise CheckFailedError(
            f"{len(single)} tensors are only in one of the tables, e.g. {printable(single[0])}"
        )
    if max_difference is not None and most > max_difference:
        raise CheckFailedError(
            f"{differences[0].tensor!r} differs by {most:.2f} %, more than {max_difference:g} %"
        )


def _alike(first: Path, second: Path) -> tuple[dict[str, Range], dict[str, Range]]:
    """Return both files' ranges; both symmetric where one is a cache, which knows no other."""
    from ..calibration.table_file import read_table
    from ..calibration.trt_cache import format_cache, parse_cache
    from ..core.ranges import Range

    caches = [file.read_bytes()[:4] == b"TRT-" for file in (first, second)]
    found = []
    for file, is_cache in zip((first, second), caches, strict=True):
        if not any(caches):
            found.append(read_table(file).ranges().ranges)
            continue
        if is_cache:
            text = file.read_bytes().decode("utf-8", "replace")
        else:
            text = format_cache(read_table(file).ranges())
        found.append({n: Range(-127 * s, 127 * s) for n, s in parse_cache(text).items()})
    return found[0], found[1]


def _text(interval: Range) -> str:
    return f"{interval.lo:.4g} to {interval.hi:.4g}"
