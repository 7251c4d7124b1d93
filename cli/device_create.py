"""``edgecls device create``."""

from __future__ import annotations

from pathlib import Path

import click

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("board")
@click.option("--os", "release", default="trixie", show_default=True, help="trixie or bookworm.")
@click.option("--name", help="Default: the board's; with the release's where it is not trixie.")
@click.option(
    "--mirror",
    metavar="URL",
    help="A Debian archive. Default: $EDGECLS_DEBIAN_MIRROR, or this machine's.",
)
@click.option("--with", "wheels", multiple=True, metavar="PACKAGE", help="Wheels to add. Repeat.")
@click.option("-c", "--constraint", type=_FILE, help="Pins for pip.")
def command(
    board: str,
    release: str,
    name: str | None,
    mirror: str | None,
    wheels: tuple[str, ...],
    constraint: Path | None,
) -> None:
    """Make a Raspberry Pi that runs here: its Debian, its Python, its instruction set.

    BOARD is pi4 or pi5. A device that is there already is taken as it is.
    """
    from ..devices.virtual import create
    from .show import TerminalProgress

    pi = create(
        board, TerminalProgress(), release_name=release, name=name, mirror=mirror, wheels=wheels,
        constraint=constraint,
    )  # fmt: skip
    click.echo(
        f"{pi.name}: {pi.board.title} ({pi.board.cpu}), Debian {pi.release.name}, "
        f"Python {pi.release.python}, in {pi.root}"
    )
    click.echo(f"try: edgecls device run {pi.name} edgecls doctor")
