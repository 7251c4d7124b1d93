"""``--on DEVICE``: the same command on other devices, side by side."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
import msgspec

from ..runtimes.engine_options import DEFAULT, EngineOptions
from .config import DEVICES
from .text import printable, printable_lines

if TYPE_CHECKING:
    from rich.table import Table

    from ..devices.remote import Image, Outcome, Session, Tally, Target

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

_COLOURS: Final = {"done": "green", "failed": "red", "away": "yellow"}


def on_option(function: F) -> F:
    """Add ``--on``."""
    return click.option(
        "--on",
        multiple=True,
        metavar="DEVICE",
        help="Run it there: ssh://user@host[:port], a name of [devices] in the file of -c, or a "
        "virtual device. Repeat for several.",
    )(function)


def run_on(
    names: Sequence[str], work: Callable[[Session], Awaitable[T]], *, quiet: bool = False
) -> list[Outcome[T]]:
    """Do the same on every device, under a table on stderr that fills as they answer.

    Args:
        names: As the user gave them.
        work: What to do on each.
        quiet: Whether there is no table.
    """
    from rich.console import Console
    from rich.live import Live

    from ..devices.remote import Tally, find_targets, on_each

    context = click.get_current_context()
    table, folder = context.meta.get(DEVICES, (None, None))
    targets = find_targets(names, table, folder)
    tallies = {target.name: Tally() for target in targets}
    noted: set[str] = set()

    def note(text: str) -> None:
        if text not in noted:
            noted.add(text)
            out.print(f"note: {printable(text)}", markup=False, soft_wrap=True)

    out = Console(stderr=True, highlight=False)
    if quiet or not out.is_terminal:
        return asyncio.run(on_each(targets, work, tallies, note))
    with Live(console=out, get_renderable=lambda: _table(targets, tallies), transient=True):
        return asyncio.run(on_each(targets, work, tallies, note))


def _table(targets: Sequence[Target], tallies: dict[str, Tally]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("device", "state", "images"):
        table.add_column(heading)
    for target in targets:
        tally = tallies[target.name]
        images = f"{tally.done}/{tally.total}" if tally.total else ""
        stage = Text(tally.stage, style=_COLOURS.get(tally.stage, ""))
        table.add_row(Text(printable(target.name)), stage, images)
    return table


def finish(
    outcomes: Sequence[Outcome[T]],
    *,
    as_json: bool,
    show: Callable[[T], None],
    builtin: Callable[[T], Any],
    code_of: Callable[[T], int] = lambda _: 0,
) -> int:
    """Print what every device answered, in the order asked, and return the worst exit code.

    Args:
        outcomes: Of the devices.
        as_json: One object per device and line: device, exit_code, error, result.
        show: Prints an answer for people.
        builtin: Turns it into what JSON knows.
        code_of: Its exit code; by default 0.
    """
    from ..devices.remote import worst

    codes = []
    for outcome in outcomes:
        value, error = outcome.value, outcome.error
        codes.append(error.exit_code if error is not None else code_of(_some(value)))
        if as_json:
            found = {
                "device": outcome.device,
                "exit_code": codes[-1],
                "error": None if error is None else str(error),
                "result": None if error is not None else builtin(_some(value)),
            }
            click.echo(json.dumps(found))
            continue
        if len(outcomes) > 1:
            click.secho(f"{printable(outcome.device)}:", bold=True)
        if error is not None:
            click.echo(f"error: {printable_lines(str(error))}", err=True)
        else:
            show(_some(value))
        if len(outcomes) > 1:
            click.echo()
    return worst(codes)


def read_images(paths: dict[str, str]) -> tuple[list[Image], dict[str, str]]:
    """Return the images with their hashes, and by name why others cannot be read.

    Args:
        paths: By path, what to call each.
    """
    from ..devices.remote import Image

    found = {name: _read(name, Path(path)) for path, name in paths.items()}
    images = [image for image in found.values() if isinstance(image, Image)]
    return images, {name: why for name, why in found.items() if isinstance(why, str)}


def _read(name: str, path: Path) -> Image | str:
    from ..devices.remote import Image

    try:
        return Image.of(name, path)
    except OSError as error:
        return (error.strerror or "unreadable").lower()


def predict_options(
    backend: str | None,
    allow_fallback: bool,
    threads: int | None,
    engine: EngineOptions = DEFAULT,
) -> list[str]:
    """Return the options of ``backend_options`` and ``engine_options`` for a command there."""
    changed = {
        f"--{name.replace('_', '-')}": value
        for name, value in msgspec.structs.asdict(engine).items()
        if value != getattr(DEFAULT, name)
    }
    return [
        *(["--backend", backend] if backend else []),
        *(["--allow-fallback"] if allow_fallback else []),
        *(["--threads", str(threads)] if threads else []),
        *(
            text
            for name, value in changed.items()
            for text in (
                [name.replace("--", "--no-", 1) if value is False else name]
                if isinstance(value, bool)
                else [name, str(value)]
            )
        ),
    ]


def _some(value: T | None) -> T:
    assert value is not None
    return value
