"""A file of logits: what a device answered, to be compared elsewhere.

The line ``EDGECLS-LOGITS 1``; a line of JSON, the header; for each image a line of JSON with its
name and its file's SHA-256, followed by the logits (float32, little-endian), or with an error and
followed by nothing; a last line of JSON with the number of entries and the SHA-256 of all bytes
before it. Written and read as a stream; nothing in it is executed.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
import numpy as np

from ..core.errors import DataError
from ..core.files import atomic_file
from ..core.preprocess import Preprocess
from ..core.values import Logits, Precision

MAGIC: Final = b"EDGECLS-LOGITS 1\n"
_MAX_HEADER: Final = 64 << 20
_MAX_LINE: Final = 64 << 10
_MAX_CLASSES: Final = 10_000_000


class LogitsHeader(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What answered.

    Attributes:
        classes: Logits per image.
        preprocess: What the images went through.
        labels: Class names by index, where known.
        synsets: Likewise.
        target: The bundle's.
        precision: Of what ran.
        backend: What ran it.
        description: For humans: versions, the device, what computes.
        bundle_sha256: Of the bundle's manifest.
        artefact: The file of it that ran.
        tool: edgecls's version.
    """

    classes: int
    preprocess: Preprocess
    labels: tuple[str, ...] | None
    synsets: tuple[str, ...] | None
    target: str
    precision: Precision
    backend: str
    description: dict[str, str]
    bundle_sha256: str
    artefact: str
    tool: str


class _Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    image: str = ""
    sha256: str = ""
    error: str = ""
    end: int = -1


class LogitsWriter:
    """Takes images one after the other; see ``write_logits``."""

    def __init__(self, file: BinaryIO, header: LogitsHeader) -> None:
        self._file = file
        self._classes = header.classes
        self._digest = hashlib.sha256()
        self._entries = 0
        self._write(MAGIC + msgspec.json.encode(header) + b"\n")

    def add(self, image: str, sha256: str, logits: Sequence[float]) -> None:
        """Take an image's logits."""
        if len(logits) != self._classes:
            raise ValueError(f"expected {self._classes} logits of {image!r}, found {len(logits)}")
        row = np.asarray(logits, "<f4").tobytes()
        self._write(_line(_Entry(image=image, sha256=sha256)) + row)
        self._entries += 1

    def add_error(self, image: str, reason: str) -> None:
        """Take an image that could not be read."""
        self._write(_line(_Entry(image=image, error=reason or "unknown")))
        self._entries += 1

    def end(self) -> None:
        """Write the last line."""
        end = {"end": self._entries, "sha256": self._digest.hexdigest()}
        self._write(msgspec.json.encode(end) + b"\n")

    def _write(self, data: bytes) -> None:
        self._digest.update(data)
        self._file.write(data)


@contextlib.contextmanager
def write_logits(path: Path, header: LogitsHeader) -> Iterator[LogitsWriter]:
    """Yield a writer; the file appears under ``path`` when the block ends without an error.

    Raises:
        OSError: The file could not be written; nothing of it is left.
    """
    with atomic_file(path) as file:
        writer = LogitsWriter(file, header)
        yield writer
        writer.end()


class LogitsFile:
    """A file of logits that was verified; the logits stay on disk.

    Attributes:
        path: Where it is.
        header: What answered.
        images: Name and SHA-256 of each image's file, in the order of the file.
        errors: Name and reason of the images that could not be read.
        sha256: Of its content, as its last line says.
    """

    def __init__(self, path: Path) -> None:
        """Read the file once.

        Raises:
            DataError: It is damaged, cut short, or none.
        """
        self.path = path
        self.images: list[tuple[str, str]] = []
        self.errors: list[tuple[str, str]] = []
        self._offsets: dict[str, int] = {}
        try:
            with path.open("rb") as file:
                self.header = self._read(file)
        except OSError as error:
            raise DataError(f"{path}: not a readable file of logits: {error.strerror}") from error

    def __contains__(self, sha256: str) -> bool:
        """Return whether an image's logits are known, by its file's hash."""
        return sha256 in self._offsets

    def logits(self, sha256: Sequence[str]) -> Logits:
        """Return the logits of images, shape (N, classes) float32, by their files' hashes.

        Raises:
            KeyError: An image is not in the file.
        """
        rows = []
        with self.path.open("rb") as file:
            for digest in sha256:
                file.seek(self._offsets[digest])
                rows.append(np.frombuffer(file.read(4 * self.header.classes), "<f4"))
        return np.stack(rows).astype(np.float32)

    def _read(self, file: BinaryIO) -> LogitsHeader:
        digest = hashlib.sha256()

        def line(limit: int) -> bytes:
            data = file.readline(limit)
            if not data.endswith(b"\n"):
                raise self._damaged("it ends too early; copy it again")
            return data

        magic = file.readline(len(MAGIC))
        if magic != MAGIC:
            raise self._damaged("it is none that predict --save-logits wrote")
        head = line(_MAX_HEADER)
        digest.update(magic + head)
        header: LogitsHeader = self._decode(head, LogitsHeader)
        if not 1 <= header.classes <= _MAX_CLASSES:
            raise self._damaged(f"{header.classes} classes")
        while True:
            data = line(_MAX_LINE)
            entry: _Entry = self._decode(data, _Entry)
            if entry.end >= 0:
                break
            row = b""
            if not entry.error:
                self.images.append((entry.image, entry.sha256))
                self._offsets[entry.sha256] = file.tell()
                row = file.read(4 * header.classes)
            else:
                self.errors.append((entry.image, entry.error))
            digest.update(data + row)
        if entry.sha256 != digest.hexdigest() or file.read(1):
            raise self._damaged("its content is not what was written; copy it again")
        if not self.images:
            raise self._damaged("it holds no image's logits")
        self.sha256 = entry.sha256
        return header

    def _decode(self, data: bytes, form: type[Any]) -> Any:
        try:
            return msgspec.json.decode(data, type=form)
        except (msgspec.DecodeError, ValueError) as error:
            raise self._damaged(str(error)) from error

    def _damaged(self, why: str) -> DataError:
        return DataError(f"{self.path}: not a file of logits that can be used: {why}")


def is_logits_file(path: Path) -> bool:
    """Return whether a file begins as one of logits does."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def _line(entry: _Entry) -> bytes:
    return msgspec.json.encode(entry) + b"\n"
