"""``edgecls calibrate show``."""

from __future__ import annotations

from pathlib import Path

import click

from .options import workstation
from .text import print_json


@click.command()
@click.argument("table", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--out", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def command(table: Path, out: Path, as_json: bool) -> None:
    """Plot TABLE into the folder OUT: overview.png, and a PNG for each tensor.

    A tensor's plot has its histogram, the range that was chosen and the share that is clipped.
    """
    with workstation():
        from ..calibration.plots import plot_table
        from ..calibration.table_file import read_table

    made = plot_table(read_table(table), out)
    if as_json:
        print_json({"plots": [str(path) for path in made]})
    else:
        click.echo(f"{made[0]} and {len(made) - 1} tensors beside it")
