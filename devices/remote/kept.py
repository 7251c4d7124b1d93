"""Keeps on this side what a device has answered, until all of a run is there."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Final

from ...core.errors import DataError
from ...core.files import write_atomic
from ...runtimes.logits_file import LogitsFile

# Who comes back after more than this gets new answers.
_LIFE_S: Final = 24 * 3600


class Kept:
    """The finished chunks of one run: of one bundle with its options, on one device.

    A chunk is complete when its lines are there; they are written last.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        oldest = time.time() - _LIFE_S
        for file in folder.parent.glob("*/*"):
            with contextlib.suppress(FileNotFoundError):  # another run removed it
                if file.stat().st_mtime < oldest:
                    file.unlink()

    def lines(self, chunk: str) -> bytes | None:
        """Return what was printed about a chunk's images; None where it is not finished."""
        try:
            return self._lines(chunk).read_bytes()
        except FileNotFoundError:
            return None

    def logits(self, chunk: str) -> LogitsFile | None:
        """Return a finished chunk's logits; None where none of its images could be read.

        Raises:
            DataError: The file is damaged.
        """
        path = self._logits(chunk)
        return LogitsFile(path) if path.exists() else None

    def keep(self, chunk: str, lines: bytes, logits: bytes | None) -> None:
        """Take a chunk.

        Raises:
            DataError: The logits are damaged; nothing is kept.
        """
        self._logits(chunk).unlink(missing_ok=True)
        if logits is not None:
            write_atomic(self._logits(chunk), logits)
            try:
                LogitsFile(self._logits(chunk))
            except DataError:
                self._logits(chunk).unlink()
                raise
        write_atomic(self._lines(chunk), lines)

    def forget(self) -> None:
        """Remove all of it."""
        for file in [*self.folder.glob("*.jsonl"), *self.folder.glob("*.logits")]:
            file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # another run of the same has begun, or none was kept
            self.folder.rmdir()

    def _lines(self, chunk: str) -> Path:
        return self.folder / f"{chunk}.jsonl"

    def _logits(self, chunk: str) -> Path:
        return self.folder / f"{chunk}.logits"
