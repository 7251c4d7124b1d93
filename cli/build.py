"""``edgecls build``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.values import PRECISIONS
from .config import config_option
from .options import backend_option, engine_options
from .remote import on_option
from .text import print_json, printable

if TYPE_CHECKING:
    from ..bundle import Bundle
    from ..devices.remote import Session
    from ..runtimes.engine_options import EngineOptions
    from ..runtimes.engines import BuildReport


def _pair(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Return ``8.6`` as (8, 6)."""
    del ctx
    if value is None:
        return None
    found = re.fullmatch(r"(\d{1,2})\.(\d)", value)
    if found is None:
        raise click.BadParameter(f"expected e.g. 8.6, found {value!r}", param=param)
    return int(found[1]), int(found[2])


@click.command()
@config_option
@click.argument("bundle", type=click.Path())
@click.option(
    "--precision", type=click.Choice(PRECISIONS), help="Of the file; default: the bundle's own."
)
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path),
    help="Write the engine to a file too.",
)  # fmt: skip
@click.option(
    "--compute-capability", callback=_pair, metavar="X.Y",
    help="With -o: for a GPU that is not here, e.g. 8.9; TensorRT-RTX alone builds so.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
@on_option
@backend_option
@engine_options
def command(
    bundle: str,
    precision: Any,
    output: Path | None,
    compute_capability: tuple[int, int] | None,
    as_json: bool,
    on: tuple[str, ...],
    backend: Any,
    engine: EngineOptions,
) -> int:
    """Build BUNDLE's TensorRT engine for this machine's GPU, ahead of its first load.

    It lies in the cache ($EDGECLS_CACHE/engines or ~/.cache/edgecls/engines), where predict, bench
    and the others with the same options find it. A bundle that runs as it is needs none, and is
    told so. With --on, on each DEVICE; of their exit codes the first of 70, 3, 2, 4, 1 counts.
    """
    from ..bundle import Bundle
    from ..runtimes.engines import build, build_for
    from .show import TerminalProgress

    opened = Bundle(Path(bundle))
    if on:
        if output is not None or compute_capability is not None:
            raise click.UsageError("with --on the engine stays on the device: no -o")
        return _build_on(opened, on, as_json, precision, backend, engine)
    progress = TerminalProgress(quiet=as_json)
    if compute_capability is None:
        found = build(opened, backend=backend, precision=precision, engine=engine,
                      output=output, progress=progress)  # fmt: skip
    elif output is None or backend not in (None, "tensorrt-rtx"):
        raise click.UsageError(
            "--compute-capability builds with tensorrt-rtx and writes a file: give -o FILE"
        )
    else:
        found = build_for(opened, compute_capability, output, precision=precision,
                          engine=engine, progress=progress)  # fmt: skip
    if as_json:
        print_json(found)
    else:
        _show(found, output)
    return 0


def _build_on(
    bundle: Bundle, on: tuple[str, ...], as_json: bool, precision: str | None,
    backend: str | None, engine: EngineOptions,
) -> int:  # fmt: skip
    import msgspec

    from ..devices.remote import push_bundle
    from ..runtimes.engines import BuildReport
    from .remote import finish, predict_options, run_on

    options = predict_options(backend, allow_fallback=False, threads=None, engine=engine)
    options += ["--precision", precision] if precision else []

    async def work(session: Session) -> BuildReport:
        place = await push_bundle(session, bundle)
        session.tally.stage = "building"
        done = await session.edgecls(["build", place, "--json", *options])
        found: BuildReport = session.decode(done.out, BuildReport)
        return found

    return finish(
        run_on(on, work, quiet=as_json), as_json=as_json, show=lambda found: _show(found, None),
        builtin=msgspec.to_builtins,
    )  # fmt: skip


def _show(found: BuildReport, output: Path | None) -> None:
    from .show import human_bytes

    if found.outcome == "not needed":
        click.echo(f"{found.artefact} runs on {found.backend} as it is: no engine is needed")
        return
    by = ", ".join(f"{key} {value}" for key, value in found.description.items())
    click.echo(f"{found.artefact} ({found.precision}) on {found.backend}: {printable(by)}")
    size = human_bytes(found.size_bytes or 0)
    click.echo(
        {
            "built": f"built in {found.build_s or 0:.1f} s, {size}",
            "cached": f"taken from the cache: built before, {size}",
            "shipped": f"the bundle's own engine loads here: nothing to build, {size}",
        }[found.outcome]
    )
    for path in (found.path, output):
        if path is not None:
            click.echo(f"-> {printable(str(path))}")
