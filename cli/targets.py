"""``edgecls targets``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .text import print_json

if TYPE_CHECKING:
    from ..targets.jetpack import JetPack, Module


@click.command()
@click.option("--jetpack", metavar="VERSION", help="What a JetPack has and runs on, e.g. 6.2.")
@click.option("--module", metavar="NAME", help="What a Jetson module has, e.g. orin-nano.")
@click.option("--devices", is_flag=True, help="All JetPacks, modules and Pi OS releases.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def command(jetpack: str | None, module: str | None, devices: bool, as_json: bool) -> None:
    """Say what can be built for, and what each can run."""
    if jetpack is not None or module is not None or devices:
        _devices(jetpack, module, as_json)
    else:
        _targets(as_json)


def _targets(as_json: bool) -> None:
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
        print_json(rows)
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


def _devices(jetpack: str | None, module: str | None, as_json: bool) -> None:
    """Show the rows of the compatibility table that fit what was asked for."""
    from ..targets.compatibility import jetpack_cells, module_cells, pi_os_cells
    from ..targets.jetpack import JETPACKS, MODULES, get_jetpack, get_module
    from ..targets.pi_os import PI_OS

    systems: tuple[JetPack, ...] = JETPACKS if jetpack is None else (get_jetpack(jetpack),)
    boards: tuple[Module, ...] = MODULES if module is None else (get_module(module),)
    systems = tuple(row for row in systems if any(board.soc in row.socs for board in boards))
    boards = tuple(row for row in boards if any(row.soc in system.socs for system in systems))
    pis = PI_OS if jetpack is None and module is None else ()
    if as_json:
        rows = {"jetpacks": systems, "modules": boards, "pi_os": pis}
        print_json(rows)
        return
    if not systems:
        click.echo(f"JetPack {jetpack} is not for {module}; see: edgecls targets --module {module}")
    _show([jetpack_cells(row) for row in systems])
    _show([module_cells(row) for row in boards])
    _show([pi_os_cells(row) for row in pis])


def _show(rows: list[dict[str, str]]) -> None:
    from rich.table import Table

    from .show import console

    if rows:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in rows[0]:
            table.add_column(heading)
        for row in rows:
            table.add_row(*row.values())
        console().print(table)
        console().print()
