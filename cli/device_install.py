"""``edgecls device install``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .config import config_option
from .remote import finish, on_option, run_on

if TYPE_CHECKING:
    from ..devices.remote import Session
    from ..devices.remote.session import About


@click.command()
@config_option
@click.argument("wheel", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@on_option
@click.option(
    "--extra", default="litert", show_default=True, metavar="NAME[,NAME]",
    help="The backend: litert, tflite-runtime, onnxruntime, tensorrt.",
)  # fmt: skip
@click.option(
    "--system-site-packages", is_flag=True,
    help="Let it see the system's packages: a Jetson's TensorRT is one.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON object per device.")
def command(
    wheel: Path, on: tuple[str, ...], extra: str, system_site_packages: bool, as_json: bool
) -> int:
    """Put WHEEL, one of edgecls, on each DEVICE, into an environment of its own.

    It is used from then on, where [devices] names no other Python. Other packages come from the
    package index that pip uses there.
    """
    import msgspec

    from ..core.errors import UsageError
    from ..devices.remote import install

    if not on:
        raise click.UsageError("give the device with --on")

    async def work(session: Session) -> About:
        if session.local:
            raise UsageError(f"{session.name} runs this very edgecls: there is nothing to install")
        return await install(session, wheel, extra=extra, system_packages=system_site_packages)

    def show(about: About) -> None:
        click.echo(f"edgecls {about.edgecls} in {about.python} (Python {about.version})")

    return finish(
        run_on(on, work, quiet=as_json), as_json=as_json, show=show,
        builtin=msgspec.to_builtins,
    )  # fmt: skip
