"""Engines are built where they run, once: kept by all that they depend on."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from ..core.errors import MissingError
from ..core.files import CACHE_VARIABLE, cache_folder, sha256_bytes, write_atomic
from ..core.progress import Gauge, Quiet

LIMIT_BYTES: Final = 4 << 30
"""What the engines may take together; the one that was built last may be larger."""


class EngineKey(msgspec.Struct, frozen=True, kw_only=True):
    """All that an engine depends on.

    Attributes:
        gpu: Its name.
        compute_capability: (major, minor).
        tensorrt: Which of the two, and its version.
        onnx_sha256: Hash of the graph.
        max_batch: Of the optimisation profile.
        opt_batch: Likewise.
        workspace_mb: The limit of a layer's memory in MiB; None is none.
        calibration_sha256: Hash of the calibration cache; None where the graph has Q/DQ or no int8.
    """

    gpu: str
    compute_capability: tuple[int, int]
    tensorrt: str
    onnx_sha256: str
    max_batch: int
    opt_batch: int = 1
    workspace_mb: int | None = None
    calibration_sha256: str | None = None

    def name(self) -> str:
        """Return the file name that stands for the key."""
        return sha256_bytes(msgspec.json.encode(self))[:32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """An engine that lies in the cache.

    Attributes:
        data: The engine.
        path: Its file.
        build_s: What building it took just now; None where it was there.
    """

    data: bytes
    path: Path
    build_s: float | None


class _Stored(msgspec.Struct, frozen=True, kw_only=True):
    """What lies beside an engine, also for people."""

    key: EngineKey
    sha256: str


class EngineCache:
    """A folder of engines that processes share.

    Where the engines take more than ``limit_bytes``, those whose last use is longest ago go, when
    the next one is built. What another process builds or reads at that moment stays.

    Attributes:
        folder: Where they lie: ``$EDGECLS_CACHE/engines`` or ``~/.cache/edgecls/engines``.
        limit_bytes: See above.
    """

    def __init__(self, folder: Path | None = None, limit_bytes: int = LIMIT_BYTES) -> None:
        self.folder = folder or cache_folder("engines")
        self.limit_bytes = limit_bytes

    def get(
        self, key: EngineKey, build: Callable[[], bytes], progress: Gauge | None = None
    ) -> Kept:
        """Return the engine of ``key``; where it is not there, or damaged, build and keep it.

        Others that want the same engine wait meanwhile, and say so.

        Args:
            key: Which engine.
            build: Makes it.
            progress: Takes the notice.

        Raises:
            MissingError: The folder cannot be written, or the disk is full.
        """
        # Without the lock, for a folder that cannot be written: it is whole or not there.
        kept = self._kept(key)
        if kept is not None:
            return kept
        name = key.name()
        path = self._path(name, "engine")
        with self._locked(name, progress=progress):
            kept = self._kept(key)  # by now another may have built it
            if kept is not None:
                return kept
            self._remove_parts(name)
            start = time.perf_counter()
            engine = build()
            taken_s = time.perf_counter() - start
            try:
                write_atomic(path, engine)
                stored = _Stored(key=key, sha256=sha256_bytes(engine))
                write_atomic(self._path(name, "json"), msgspec.json.encode(stored))
            except OSError as error:
                raise self._unwritable(error) from error
        self._evict(name)
        return Kept(data=engine, path=path, build_s=taken_s)

    def discard(self, key: EngineKey) -> None:
        """Forget an engine that TensorRT does not take."""
        with self._locked(key.name()):
            self._remove(key.name())

    def _kept(self, key: EngineKey) -> Kept | None:
        """Return what lies there of ``key``, whole and undamaged, and note its use."""
        name = key.name()
        path = self._path(name, "engine")
        try:
            stored = msgspec.json.decode(self._path(name, "json").read_bytes(), type=_Stored)
            engine = path.read_bytes()
        except (OSError, msgspec.DecodeError):
            return None
        if stored.key != key or stored.sha256 != sha256_bytes(engine):
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return Kept(data=engine, path=path, build_s=None)

    def _evict(self, newest: str) -> None:
        engines = []
        for file in self.folder.glob("*.engine"):
            with contextlib.suppress(FileNotFoundError):
                state = file.stat()
                engines.append((state.st_mtime_ns, state.st_size, file.stem))
        total = sum(size for _, size, _ in engines)
        for _, size, name in sorted(engines):
            if total <= self.limit_bytes:
                return
            if name == newest:
                continue
            # Held by another process, or another user's: it stays.
            with contextlib.suppress(OSError, MissingError), self._locked(name, wait=False):
                self._remove(name)
                self._remove_parts(name)
                total -= size

    def _remove(self, name: str) -> None:
        self._path(name, "json").unlink(missing_ok=True)
        self._path(name, "engine").unlink(missing_ok=True)

    def _remove_parts(self, name: str) -> None:
        """Remove what a process left that was killed as it wrote; its lock went with it."""
        for part in self.folder.glob(f".{name}.*.tmp"):
            part.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(
        self, name: str, *, wait: bool = True, progress: Gauge | None = None
    ) -> Iterator[None]:
        """Hold an engine's lock; its file stays, as others may wait for it already."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = self._path(name, "lock").open("wb")
        except OSError as error:
            raise self._unwritable(error) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not wait:
                    raise
                (progress or Quiet()).note("waiting for another process, which has this engine")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _path(self, name: str, ending: str) -> Path:
        return self.folder / f"{name}.{ending}"

    def _unwritable(self, error: OSError) -> MissingError:
        return MissingError(
            f"the engine cache {self.folder} cannot be written ({error.strerror}); "
            f"set {CACHE_VARIABLE} to a folder that can"
        )
