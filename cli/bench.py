"""``edgecls bench``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from .config import config_option
from .options import backend_options, engine_options, open_predictor
from .remote import on_option
from .text import printable

if TYPE_CHECKING:
    from ..devices.bench.result import BenchResult
    from ..devices.remote import Outcome, Session
    from ..runtimes.engine_options import EngineOptions

# Of JSON that a device sends: five stages of a run, each below 20 characters.
_RUN_BYTES: Final = 128


@click.command()
@config_option
@click.argument("bundle", type=click.Path())
@click.argument("images", nargs=-1)
@click.option(
    "--data", type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder of images, in the place of IMAGES; at most one for each run is taken.",
)  # fmt: skip
@click.option(
    "--processes", type=click.IntRange(1, 1000), default=5, show_default=True,
    help="Fresh processes to measure in, one after the other.",
)  # fmt: skip
@click.option(
    "--runs", type=click.IntRange(1, 1_000_000), default=100, show_default=True,
    help="Measured runs of each process.",
)  # fmt: skip
@click.option(
    "--warmup", type=click.IntRange(0, 1_000_000), default=10, show_default=True,
    help="Runs before them.",
)  # fmt: skip
@click.option(
    "--batch", type=click.IntRange(1, 1024), default=1, show_default=True,
    help="Images per run, predicted at once.",
)  # fmt: skip
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path),
    help="A JSON file of all that was measured, for bench compare.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="The same on stdout.")
@on_option
@backend_options
@engine_options
def command(
    bundle: str,
    images: tuple[str, ...],
    data: Path | None,
    processes: int,
    runs: int,
    warmup: int,
    batch: int,
    output: Path | None,
    as_json: bool,
    on: tuple[str, ...],
    backend: str | None,
    allow_fallback: bool,
    threads: int | None,
    engine: EngineOptions,
) -> int:
    """Measure BUNDLE: latency by stage, throughput, cold start, memory, and what the board tells.

    It predicts the IMAGES, by default the bundle's golden samples, over and over. With --on, on
    each DEVICE; of their exit codes the first of 70, 3, 2, 4, 1 counts.

    Exit code 0: measured; 1: measured, but the board slowed down meanwhile: the figures are
    invalid.
    """
    from typing import cast

    from ..devices.bench.measure import Options, bench
    from ..targets.target import BackendName
    from .show import TerminalProgress

    if images and data is not None:
        raise click.UsageError("give IMAGES or --data DIR, not both")
    if data is not None:
        images = _chosen(data, runs * batch)
    if on:
        if output is not None and len(on) > 1:
            raise click.UsageError("-o writes one file: give one --on")
        measured = ["--processes", processes, "--runs", runs, "--warmup", warmup, "--batch", batch]
        limit_bytes = processes * runs * _RUN_BYTES
        return _bench_on(
            bundle, images, on, list(map(str, measured)), output, limit_bytes, as_json,
            backend, allow_fallback, threads, engine,
        )  # fmt: skip
    options = Options(
        processes=processes, runs=runs, warmup=warmup, batch=batch,
        backend=cast("BackendName | None", backend), allow_fallback=allow_fallback, engine=engine,
    )  # fmt: skip
    predictor = open_predictor(bundle, backend, allow_fallback, threads, engine)
    found = bench(predictor, images, options, TerminalProgress(quiet=as_json))
    _write(found, output)
    if as_json:
        click.echo(found.to_json(), nl=False)
    else:
        _show(found, output)
    return _code(found)


def _chosen(folder: Path, count: int) -> tuple[str, ...]:
    from ..data.images import list_images, select_images

    return tuple(str(image.path) for image in select_images(list_images(folder), count, 0))


def _bench_on(
    bundle: str, images: Sequence[str], on: Sequence[str], measured: Sequence[str],
    output: Path | None, limit_bytes: int, as_json: bool, *options: Any,
) -> int:  # fmt: skip
    import msgspec

    from ..bundle import Bundle
    from ..core.errors import BadInputError, ImageError
    from ..devices.bench.result import BenchResult
    from ..devices.remote import push_bundle
    from ..devices.remote.push import push
    from ..devices.remote.transport import OUTPUT_LIMIT_BYTES
    from .remote import finish, predict_options, read_images, run_on

    opened = Bundle(Path(bundle))
    files, unread = read_images({image: image for image in images})
    for name, why in unread.items():
        raise ImageError(name, why)

    async def work(session: Session) -> BenchResult:
        place = await push_bundle(session, opened)
        await push(session, list({file.sha256: file.sent for file in files}.values()))
        cache = (await session.about()).cache
        session.tally.stage = "measuring"
        places = [f"{cache}/{file.sent.name}" for file in files]
        try:
            done = await session.edgecls(
                ["bench", place, *places, "--json", *measured, *predict_options(*options)],
                codes=(0, 1), limit_bytes=OUTPUT_LIMIT_BYTES + limit_bytes,
            )  # fmt: skip
        except BadInputError as error:
            text = str(error)
            for file, name in zip(files, places, strict=True):
                text = text.replace(name, file.name)
            raise BadInputError(text) from error
        if not done.out:
            raise session.failure(done)
        found: BenchResult = session.decode(done.out, BenchResult)
        return found

    outcomes: list[Outcome[BenchResult]] = run_on(on, work, quiet=as_json)
    for outcome in outcomes:
        if outcome.value is not None:
            _write(outcome.value, output)
    return finish(
        outcomes, as_json=as_json, show=lambda found: _show(found, output),
        builtin=msgspec.to_builtins, code_of=_code,
    )  # fmt: skip


def _write(found: BenchResult, output: Path | None) -> None:
    from ..core.files import write_atomic

    if output is not None:
        write_atomic(output, found.to_json())


def _code(found: BenchResult) -> int:
    return 1 if found.invalid else 0


def _show(found: BenchResult, output: Path | None) -> None:
    from rich.table import Table
    from rich.text import Text

    from .bench_text import notes, rows, stage_rows, title, verdict
    from .show import console

    out = console()
    for line in title(found):
        out.print(printable(line), markup=False)
    out.print()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("", "p50", "p90", "p99"):
        table.add_column(heading, justify="right" if heading else "left")
    for row in stage_rows(found):
        table.add_row(*row)
    out.print(table)
    out.print()
    more = Table(box=None, pad_edge=False, show_header=False)
    more.add_column(no_wrap=True)
    more.add_column(overflow="fold")
    for name, value in rows(found):
        more.add_row(name, Text(printable(value)))
    out.print(more)
    for note in notes(found):
        out.print(f"note: {printable(note)}", markup=False)
    colour, text = verdict(found)
    out.print(f"\n[bold {colour}]{text}[/]")
    for reason in found.invalid:
        out.print(f"  {printable(reason)}", markup=False)
    if output is not None:
        out.print(f"-> {printable(str(output))}", markup=False, soft_wrap=True)
