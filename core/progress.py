"""Progress of long work, handed in by whoever shows it; nothing here prints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """What the command line gives to a workflow."""

    def track(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        """Yield ``items`` and show how many of ``total`` have been taken."""
        ...

    def step(self, description: str) -> None:
        """Say what begins now."""
        ...

    def note(self, message: str) -> None:
        """Say something that the user should know, e.g. what was skipped and why."""
        ...


class Gauge(Protocol):
    """What long work takes that says itself how far it is."""

    def fraction(self, description: str, done: float) -> None:
        """Show that ``done`` of something (0..1) is behind; 1 ends it."""
        ...

    def note(self, message: str) -> None:
        """Say something that the user should know."""
        ...


class Quiet:
    """Shows nothing."""

    def track(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        """Yield ``items``."""
        del description, total
        yield from items

    def step(self, description: str) -> None:
        """Do nothing."""

    def note(self, message: str) -> None:
        """Do nothing."""

    def fraction(self, description: str, done: float) -> None:
        """Do nothing."""
