"""``edgecls verify``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .config import config_option
from .options import backend_options, engine_options, open_predictor
from .remote import on_option
from .text import print_json

if TYPE_CHECKING:
    from ..bundle import Bundle
    from ..devices.remote import Session
    from ..runtimes.engine_options import EngineOptions
    from ..runtimes.verify import Verification


@click.command()
@config_option
@click.argument("bundle", type=click.Path())
@click.option("--files-only", is_flag=True, help="Check the hashes and the schema; run nothing.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
@on_option
@backend_options
@engine_options
def command(
    bundle: str,
    files_only: bool,
    as_json: bool,
    on: tuple[str, ...],
    backend: str | None,
    allow_fallback: bool,
    threads: int | None,
    engine: EngineOptions,
) -> int:
    """Check BUNDLE: every file's hash, the schema, and the golden samples on this machine.

    With --on, on each DEVICE; of their exit codes the first of 70, 3, 2, 4, 1 counts.

    Exit code 0: all as exported; 1: this machine computes something else, and which step does, or
    computes it without the kernels that it should have; 4: the bundle is damaged.
    """
    from pathlib import Path

    from ..bundle import Bundle
    from ..runtimes.verify import verify

    opened = Bundle(Path(bundle))
    if files_only:
        if on:
            raise click.UsageError("with --on, files are checked as they are sent: no --files-only")
        opened.verify()
        files = len(opened.manifest.files)
        click.echo(f'{{"files": {files}}}' if as_json else f"{files} files as exported")
        return 0
    if on:
        return _verify_on(opened, on, as_json, backend, allow_fallback, threads, engine)
    found = verify(open_predictor(opened, backend, allow_fallback, threads, engine))
    if as_json:
        print_json(found)
    else:
        _show(opened, found)
    return 0 if found.passed else 1


def _verify_on(bundle: Bundle, on: tuple[str, ...], as_json: bool, *options: Any) -> int:
    import msgspec

    from ..devices.remote import verify_there
    from .remote import finish, predict_options, run_on

    async def work(session: Session) -> Verification:
        return await verify_there(session, bundle, predict_options(*options))

    return finish(
        run_on(on, work, quiet=as_json), as_json=as_json, show=lambda found: _show(bundle, found),
        builtin=msgspec.to_builtins, code_of=lambda found: 0 if found.passed else 1,
    )  # fmt: skip


def _show(opened: Bundle, found: Verification) -> None:
    from rich.table import Table

    from .show import console

    out = console()
    out.print(f"{len(opened.manifest.files)} files as exported")
    runs_on = ", ".join(f"{key} {value}" for key, value in found.description.items())
    out.print(f"{found.artefact} ({found.precision}) on {found.backend}: {runs_on}\n")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("sample", "pixels", "logits", "limit", "result"):
        table.add_column(heading)
    for sample in found.samples:
        codes = sample.pixel_codes
        table.add_row(
            sample.sample,
            "unreadable" if codes is None else "equal" if codes == 0 else f"off by {codes}",
            f"{sample.logits:.2g}",
            f"{sample.limit:g}",
            sample.state + (f" ({sample.step}): {sample.message}" if sample.message else ""),
        )
    out.print(table)
    if found.problem is not None:
        out.print(f"\n{found.problem}", markup=False)
    out.print("\n[bold green]passed[/]" if found.passed else "\n[bold red]failed[/]")
