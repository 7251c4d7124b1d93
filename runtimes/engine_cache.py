"""Engines are built where they run, once: kept by all that they depend on."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from ..core.errors import MissingError
from ..core.files import CACHE_VARIABLE, cache_folder, sha256_bytes, write_atomic


class EngineKey(msgspec.Struct, frozen=True, kw_only=True):
    """All that an engine depends on.

    Attributes:
        gpu: Its name.
        compute_capability: (major, minor).
        tensorrt: Which of the two, and its version.
        onnx_sha256: Hash of the graph.
        max_batch: The build's configuration.
    """

    gpu: str
    compute_capability: tuple[int, int]
    tensorrt: str
    onnx_sha256: str
    max_batch: int

    def name(self) -> str:
        """Return the file name that stands for the key."""
        return sha256_bytes(msgspec.json.encode(self))[:32]


class _Stored(msgspec.Struct, frozen=True, kw_only=True):
    """What lies beside an engine, also for people."""

    key: EngineKey
    sha256: str


class EngineCache:
    """A folder of engines that processes share.

    Attributes:
        folder: Where they lie: ``$EDGECLS_CACHE/engines`` or ``~/.cache/edgecls/engines``.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_folder("engines")

    def get(self, key: EngineKey, build: Callable[[], bytes]) -> bytes:
        """Return the engine of ``key``; where it is not there, or damaged, build and keep it.

        Others that want the same engine wait meanwhile.

        Raises:
            MissingError: The folder cannot be written.
        """
        with self._locked(key):
            found = self._read(key)
            if found is not None:
                return found
            engine = build()
            try:
                write_atomic(self._path(key, "engine"), engine)
                stored = _Stored(key=key, sha256=sha256_bytes(engine))
                write_atomic(self._path(key, "json"), msgspec.json.encode(stored))
            except OSError as error:
                raise self._unwritable(error) from error
            return engine

    def discard(self, key: EngineKey) -> None:
        """Forget an engine that TensorRT does not take."""
        with self._locked(key):
            self._path(key, "json").unlink(missing_ok=True)
            self._path(key, "engine").unlink(missing_ok=True)

    def _read(self, key: EngineKey) -> bytes | None:
        try:
            stored = msgspec.json.decode(self._path(key, "json").read_bytes(), type=_Stored)
            engine = self._path(key, "engine").read_bytes()
        except (OSError, msgspec.DecodeError):
            return None
        return engine if stored.key == key and stored.sha256 == sha256_bytes(engine) else None

    @contextlib.contextmanager
    def _locked(self, key: EngineKey) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = self._path(key, "lock").open("wb")
        except OSError as error:
            raise self._unwritable(error) from error
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _path(self, key: EngineKey, ending: str) -> Path:
        return self.folder / f"{key.name()}.{ending}"

    def _unwritable(self, error: OSError) -> MissingError:
        return MissingError(
            f"the engine cache {self.folder} cannot be written ({error.strerror}); "
            f"set {CACHE_VARIABLE} to a folder that can"
        )
