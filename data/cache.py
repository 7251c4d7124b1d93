"""Keeps decoded images, in memory or on disk, within a bound."""

from __future__ import annotations

import contextlib
import os
import struct
import tempfile
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import msgspec
import numpy as np

from ..core.files import sha256_bytes
from ..core.preprocess import Preprocess
from ..core.values import Pixels
from ..runtimes.images import read_regular_file

Decode = Callable[[bytes], Pixels]

# Changes with anything that changes the pixels of the same file and preprocessing.
_VERSION: Final = 1
_MAGIC: Final = b"ECPX"
_ABANDONED_S: Final = 3600
_HEADER: Final = struct.Struct("<4sI3I")


class PixelCache(Protocol):
    """Gives the pixels of a file, decoded now or before."""

    def fetch(self, path: str, variant: str, decode: Decode) -> Pixels:
        """Return the pixels (H, W, C) of a file; they must not be written to.

        Args:
            path: The file.
            variant: What ``variant_of`` says of the preprocessing.
            decode: Makes pixels of the file's bytes, where they are not kept.

        Raises:
            ImageError: The file cannot be read or decoded.
        """
        ...


def variant_of(preprocess: Preprocess) -> str:
    """Return a hash of all that decides which pixels a file becomes."""
    parts = [
        preprocess.color, preprocess.resize, preprocess.crop, preprocess.interpolation,
        preprocess.antialias, preprocess.exif, preprocess.draft, _VERSION,
    ]  # fmt: skip
    return sha256_bytes(msgspec.json.encode(parts))[:16]


class MemoryCache:
    """Keeps the images that were used last, up to a number of bytes; for threads of one process.

    A file that has changed (another size or time) is decoded again.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self._kept: OrderedDict[tuple[str, int, int, str], Pixels] = OrderedDict()
        self._lock = threading.Lock()

    def fetch(self, path: str, variant: str, decode: Decode) -> Pixels:
        """See ``PixelCache``."""
        try:
            status = os.stat(path)  # noqa: PTH116 - for every image of every epoch
            key = (path, status.st_size, status.st_mtime_ns, variant)
        except (OSError, ValueError):
            return decode(read_regular_file(path))  # says what is wrong with it
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                return found
        pixels = decode(read_regular_file(path))
        with self._lock:
            if key not in self._kept and pixels.nbytes <= self.limit_bytes:
                self._kept[key] = pixels
                self.used_bytes += pixels.nbytes
                while self.used_bytes > self.limit_bytes:
                    self.used_bytes -= self._kept.popitem(last=False)[1].nbytes
        return pixels


class DiskCache:
    """Keeps decoded images in a folder, under the hashes of their files and preprocessing.

    Several threads and processes may use one folder: files are put there whole. What was used
    longest ago goes first. A file that is damaged is decoded anew.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        self._written = 0
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        self._trim()

    def __getstate__(self) -> tuple[Path, int]:
        return self.folder, self.limit_bytes

    def __setstate__(self, state: tuple[Path, int]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    def fetch(self, path: str, variant: str, decode: Decode) -> Pixels:
        """See ``PixelCache``."""
        data = read_regular_file(path)
        file = self.folder / variant / f"{sha256_bytes(data)}.px"
        found = _load(file)
        if found is not None:
            return found
        pixels = decode(data)
        size = _HEADER.size + pixels.nbytes
        if size <= self.limit_bytes:
            _store(file, pixels)
            with self._lock:
                self._written += size
                # What others wrote is seen by the next look at the folder: a tenth more at most.
                if self._written > self.limit_bytes // 10:
                    self._trim()
        return pixels

    def _trim(self) -> None:
        """Look at the folder and remove what was used longest ago until nine tenths remain."""
        for left in self.folder.glob("*/*.tmp"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > _ABANDONED_S:
                    left.unlink(missing_ok=True)
        files = []
        for file in self.folder.glob("*/*.px"):
            try:
                status = file.stat()
            except FileNotFoundError:  # another process removed it
                continue
            files.append((status.st_mtime_ns, status.st_size, file))
        total = sum(size for _, size, _ in files)
        self._written = 0
        for _, size, file in sorted(files):
            if total <= self.limit_bytes - self.limit_bytes // 10:
                break
            file.unlink(missing_ok=True)
            total -= size


def _load(file: Path) -> Pixels | None:
    try:
        data = file.read_bytes()
        os.utime(file)
    except OSError:
        return None
    if len(data) < _HEADER.size:
        return None
    magic, checksum, *shape = _HEADER.unpack_from(data)
    payload = memoryview(data)[_HEADER.size :]
    if magic != _MAGIC or len(payload) != np.prod(shape) or zlib.crc32(payload) != checksum:
        return None
    return np.frombuffer(payload, np.uint8).reshape(shape)


def _store(file: Path, pixels: Pixels) -> None:
    """Write a file whole; without a sync, as what a power cut tears apart has a wrong checksum."""
    payload = pixels.tobytes()
    file.parent.mkdir(exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(_HEADER.pack(_MAGIC, zlib.crc32(payload), *pixels.shape))
            stream.write(payload)
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
