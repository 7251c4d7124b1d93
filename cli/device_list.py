"""``edgecls device list``."""

from __future__ import annotations

import click

from .text import print_json


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def command(as_json: bool) -> None:
    """Say which virtual devices there are, and what they are made of."""
    import msgspec
    from rich.table import Table

    from ..devices.virtual import created
    from .show import console

    found = created()
    if as_json:
        records = {
            name: {"root": str(pi.root), **msgspec.to_builtins(pi.record)}
            for name, pi in found.items()
        }
        print_json(records)
        return
    if not found:
        click.echo("there is none; make one with: edgecls device create pi5")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("name", "board", "core", "system", "Python", "LiteRT"):
        table.add_column(heading)
    for name, pi in found.items():
        system, litert = f"Debian {pi.release.name}", pi.record.wheels.get("ai-edge-litert", "")
        table.add_row(name, pi.board.title, pi.board.cpu, system, pi.release.python, litert)
    console().print(table)
