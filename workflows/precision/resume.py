"""Results that an interrupted search has already, as a file from which it goes on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import numpy as np

from ...calibration.collect import data_hash, model_hash
from ...core.errors import DataError
from ...core.files import sha256_bytes, write_atomic
from ...core.values import QuantScheme
from ...core.version import VERSION
from .judging import Judging
from .source import Source

FORMAT: Final = "edgecls-precision-results"
SCHEMA_VERSION: Final = 2

T = TypeVar("T")


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: str
    schema_version: int
    identity: dict[str, str]
    results: dict[str, msgspec.Raw]


class Results:
    """Keeps results by name; each is on the disk before the next is begun.

    Args:
        path: The file, which need not be there yet; None keeps them in memory only.
        identity: Hashes of what the results depend on, by what it is.

    Raises:
        DataError: The file is of another run, or none that was written here.
    """

    def __init__(self, path: Path | None, identity: Mapping[str, str]) -> None:
        self._path = path
        self._identity = dict(identity)
        self._results: dict[str, msgspec.Raw] = {}
        if path is not None and path.exists():
            self._results = self._read(path)

    def get(self, name: str, kind: type[T]) -> T | None:
        """Return a result; None where it is not there yet."""
        found = self._results.get(name)
        if found is None:
            return None
        return msgspec.json.decode(found, type=kind, dec_hook=lambda _, numbers: np.array(numbers))

    def put(self, name: str, result: object) -> None:
        """Keep a result.

        Raises:
            OSError: The file could not be written; the old one is untouched.
        """
        self._results[name] = msgspec.Raw(
            msgspec.json.encode(result, enc_hook=lambda array: array.tolist())
        )
        if self._path is not None:
            found = _File(
                format=FORMAT, schema_version=SCHEMA_VERSION, identity=self._identity,
                results=self._results,
            )  # fmt: skip
            write_atomic(self._path, msgspec.json.encode(found) + b"\n")

    def _read(self, path: Path) -> dict[str, msgspec.Raw]:
        again = "remove the file, or name another, to begin again"
        try:
            found = msgspec.json.decode(path.read_bytes(), type=_File)
        except (OSError, msgspec.DecodeError, ValueError) as error:
            raise DataError(f"{path}: not a file of results: {error}; {again}") from error
        if (found.format, found.schema_version) != (FORMAT, SCHEMA_VERSION):
            raise DataError(
                f"{path}: expected {FORMAT} of version {SCHEMA_VERSION}, found "
                f"{found.format} of version {found.schema_version}; {again}"
            )
        names = dict.fromkeys([*self._identity, *found.identity])
        changed = [name for name in names if found.identity.get(name) != self._identity.get(name)]
        if changed:
            raise DataError(
                f"{path}: since it was begun there changed {' and '.join(changed)}; {again}"
            )
        return {name: msgspec.Raw(bytes(raw)) for name, raw in found.results.items()}


def identity(source: Source, judging: Judging) -> dict[str, str]:
    """Return hashes of all that a run depends on, by what it is.

    Args:
        source: Before any repair: what a repair makes of it has names of its own in the results.
        judging: The images.
    """
    return {
        "the model": model_hash(source.model),
        "the calibration": source.table.sha256(),
        "the images": data_hash(judging.hashes),
        "the ground truth": sha256_bytes(judging.truth.tobytes() + bytes([judging.graded])),
        "edgecls": VERSION,
    }


def key_of(source: Source, *schemes: QuantScheme) -> str:
    """Return what the names of results begin with that schemes give of a source."""
    return f"{source.sha256()}/{msgspec.json.encode(schemes).decode()}"
