"""Progress bars and tables on the terminal; quiet where there is none."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TextIO, TypeVar

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")


def console() -> Console:
    """Return a console on stdout; what reads a pipe gets whole lines."""
    return Console(highlight=False, width=None if _is_terminal() else 160)


def _is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


class TerminalProgress:
    """Shows progress on stderr: bars on a terminal, notices always, unless quiet.

    ``file`` is stderr where that is not ``sys.stderr`` now.
    """

    def __init__(self, *, quiet: bool = False, file: TextIO | None = None) -> None:
        self._quiet = quiet
        self._noted: set[str] = set()
        self._console = Console(stderr=True, file=file, highlight=False)
        self._gauge: Progress | None = None

    def track(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        """Yield ``items`` under a bar."""
        if self._quiet or not self._console.is_terminal:
            yield from items
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console, transient=True) as progress:
            yield from progress.track(items, total=total, description=description)

    def step(self, description: str) -> None:
        """Say what begins now."""
        if not self._quiet and self._console.is_terminal:
            self._console.print(f"[dim]{description}[/dim]")

    def fraction(self, description: str, done: float) -> None:
        """Show how far something is, in a line that goes when it is done."""
        if self._quiet or not self._console.is_terminal:
            return
        if self._gauge is None and done < 1:
            columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(),
                       TimeElapsedColumn())  # fmt: skip
            self._gauge = Progress(*columns, console=self._console, transient=True)
            self._gauge.add_task(description, total=1.0)
            self._gauge.start()
        if self._gauge is not None:
            (task,) = self._gauge.task_ids
            self._gauge.update(task, description=description, completed=done)
            if done >= 1:
                self._gauge.stop()
                self._gauge = None

    def note(self, message: str) -> None:
        """Say something that the user should know, once."""
        if message not in self._noted:
            self._noted.add(message)
            click.echo(f"note: {message}", err=True)


def human_bytes(size: int) -> str:
    """Return a size with a unit, e.g. "5.4 MB"."""
    if size < 1000:
        return f"{size} B"
    return f"{size / 1000:.1f} kB" if size < 1_000_000 else f"{size / 1_000_000:.1f} MB"


def human_ms(speed_ms: dict[str, float]) -> str:
    """Return the stages' times in a line, e.g. "decode 3.1 ms, inference 2.0 ms"."""
    return ", ".join(f"{stage} {value:.1f} ms" for stage, value in speed_ms.items())
