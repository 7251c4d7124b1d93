"""What a stage's work depends on, as a hash: its options with files replaced by what they hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from ...core.files import sha256_bytes, sha256_file

# Where results go, and how fast they come; what answers do not depend on.
_NO_INPUTS: Final = frozenset(
    {"out", "resume", "scale", "workers", "cache_bytes", "cache", "tensorboard", "keep_graphs",
     "tune_resume"}
)  # fmt: skip
# What may name a file: a model's folder, a graph, a file of preprocessing.
_FILES_OR_NAMES: Final = frozenset({"model", "source", "reference", "preprocess"})


class Keys:
    """Hashes options; what a folder holds is read once."""

    def __init__(self) -> None:
        self._known: dict[Path, str] = {}

    def __call__(self, *values: object) -> str:
        """Return the hash of dataclasses, structs and plain values, by their content."""
        described = [self._described(value, "") for value in values]
        return sha256_bytes(msgspec.json.encode(described, order="deterministic"))

    def content(self, path: Path) -> str:
        """Return the hash of a file's bytes, or of all names and bytes in a folder."""
        path = path.absolute()
        if path not in self._known:
            if path.is_dir():
                files = sorted(file for file in path.rglob("*") if file.is_file())
                named = [(str(file.relative_to(path)), sha256_file(file)) for file in files]
                # A name need not be UTF-8.
                self._known[path] = sha256_bytes(repr(named).encode("utf-8", "backslashreplace"))
            else:
                self._known[path] = sha256_file(path)
        return self._known[path]

    def forget(self, path: Path) -> None:
        """Read a path again when it is asked for: it is about to change."""
        self._known.pop(path.absolute(), None)

    def _described(self, value: object, name: str) -> Any:
        if isinstance(value, Path):
            return self.content(value) if value.exists() else None
        if isinstance(value, str):
            file = name in _FILES_OR_NAMES and Path(value).exists()
            return self.content(Path(value)) if file else value
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return self._fields({f.name: getattr(value, f.name) for f in dataclasses.fields(value)})
        if isinstance(value, msgspec.Struct):
            return self._fields({f: getattr(value, f) for f in value.__struct_fields__})
        if isinstance(value, Mapping):
            return {str(key): self._described(part, "") for key, part in value.items()}
        if isinstance(value, (tuple, list)):
            return [self._described(part, name) for part in value]
        return value

    def _fields(self, fields: Mapping[str, object]) -> dict[str, Any]:
        return {
            name: self._described(value, name)
            for name, value in fields.items()
            if name not in _NO_INPUTS
        }
