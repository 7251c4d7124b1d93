"""``edgecls targets``."""

from __future__ import annotations

import json

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def command(as_json: bool) -> None:
    """Say what can be built for, and what each can run."""
    from rich.table import Table

    from ..targets import TARGETS
    from .show import console

    if as_json:
        rows = [
            {
                "name": target.name,
                "title": target.title,
                "ships": target.ships,
                "precisions": list(target.precisions),
                "backends": list(target.backends),
                "simulators": list(target.simulators),
                "scheme": {
                    "activations": target.scheme.activations,
                    "placement": target.scheme.placement,
                },
            }
            for target in TARGETS.values()
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("target", "device", "ships", "precisions", "runs on", "int8 activations"):
        table.add_column(heading)
    for target in TARGETS.values():
        table.add_row(
            target.name,
            target.title,
            target.ships,
            " ".join(target.precisions),
            " ".join(target.backends),
            target.scheme.activations,
        )
    console().print(table)
