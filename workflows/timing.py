"""What each stage of a workflow took."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from ..core.progress import Progress


class Stages:
    """Names the stages as they begin and keeps the seconds of each.

    Attributes:
        seconds: By stage, in the order of their first beginning; a stage that is entered again
            adds up.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.seconds: dict[str, float] = {}

    def note(self, message: str) -> None:
        """Say something that the user should know."""
        self._progress.note(message)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what runs inside."""
        self._progress.step(name)
        start = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - start
            self.seconds[name] = self.seconds.get(name, 0.0) + elapsed
