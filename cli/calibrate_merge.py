"""``edgecls calibrate merge``."""

from __future__ import annotations

from pathlib import Path

import click

from ..core.errors import UsageError
from .calibrate import out_options, summarize, write
from .options import workstation


@click.command()
@click.argument(
    "tables", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@out_options
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def command(tables: tuple[Path, ...], out: Path | None, form: str, as_json: bool) -> None:
    """Add up TABLES of parts into the table OUT that one run over all images would have made.

    One table alone is written again, e.g. with --format trt-cache.
    """
    with workstation():
        from ..workflows.calibrate import merge_files

    if out is None:
        raise UsageError("nowhere to write the table; give -o FILE")
    table = merge_files(tables)
    write(table, out, form)
    summarize(table, out, as_json)
