"""``edgecls models``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from .options import workstation
from .text import print_json

if TYPE_CHECKING:
    from ..models.catalog import Entry


@click.command()
@click.argument("pattern", required=False)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def command(pattern: str | None, as_json: bool) -> None:
    """List what can be trained and exported, with parameters and multiply-accumulates.

    PATTERN is a part of a name (resnet), or with * and ? all of it ('timm:resnet*'), and looks
    through all of timm and torchvision; without it the usual ones are listed.
    """
    with workstation():
        from ..models.catalog import describe, find_models
    from ..core.errors import ModelError
    from .show import TerminalProgress

    progress = TerminalProgress(quiet=as_json)

    def described(name: str) -> Entry | None:
        try:
            return describe(name)
        except ModelError as error:  # one of many that match has no head of its own
            progress.note(str(error))
            return None

    names = progress.track(find_models(pattern), "models")
    found = [entry for entry in map(described, names) if entry is not None]
    if as_json:
        print_json([_to_json(entry) for entry in found])
    else:
        _print(found)


def _to_json(entry: Entry) -> dict[str, object]:
    return {
        "model": entry.source,
        "family": entry.family,
        "input_size": list(entry.input_size),
        "num_classes": entry.num_classes,
        "parameters": entry.cost.parameters,
        "macs": entry.cost.macs,
    }


def _print(entries: Sequence[Entry]) -> None:
    from rich.table import Table

    from .show import console

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("model", "family", "input", "classes", "parameters", "MACs"):
        text = heading in {"model", "family"}
        table.add_column(heading, justify="left" if text else "right", no_wrap=True)
    for entry in entries:
        table.add_row(
            entry.source,
            entry.family,
            "x".join(str(side) for side in entry.input_size),
            str(entry.num_classes),
            f"{entry.cost.parameters / 1e6:.2f} M",
            f"{entry.cost.macs / 1e6:.1f} M",
        )
    console().print(table)
