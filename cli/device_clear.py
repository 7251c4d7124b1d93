"""``edgecls device clear``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .config import config_option
from .remote import finish, on_option, run_on
from .show import human_bytes

if TYPE_CHECKING:
    from ..devices.remote.install import Cleared


@click.command()
@config_option
@on_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object per device.")
def command(on: tuple[str, ...], as_json: bool) -> int:
    """Remove what was sent to each DEVICE: bundles, images, wheels. What is installed stays."""
    import msgspec

    from ..devices.remote import clear

    if not on:
        raise click.UsageError("give the device with --on")

    def show(found: Cleared) -> None:
        click.echo(f"{found.files} files removed, {human_bytes(found.bytes)}")

    return finish(
        run_on(on, clear, quiet=as_json), as_json=as_json, show=show,
        builtin=msgspec.to_builtins,
    )  # fmt: skip
