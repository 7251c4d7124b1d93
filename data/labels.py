"""Class names in the order of a model's outputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from ..core.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """Names by class index, and WordNet's synsets where the file has them."""

    names: tuple[str, ...]
    synsets: tuple[str, ...] | None = None

    def check(self, num_classes: int) -> None:
        """Raise DataError where the model has another number of outputs."""
        if len(self.names) != num_classes:
            raise DataError(
                f"the labels name {len(self.names)} classes, the model has {num_classes} outputs"
            )

    def difference(self, other: Labels) -> str | None:
        """Return where ``other`` first means another class, in words; None where nowhere."""
        if len(self.names) != len(other.names):
            return f"{len(self.names)} classes have a name, not {len(other.names)}"
        pairs = [(self.names, other.names)]
        if self.synsets is not None and other.synsets is not None:
            pairs.append((self.synsets, other.synsets))
        for mine, theirs in pairs:
            for index, (one, another) in enumerate(zip(mine, theirs, strict=True)):
                if one != another:
                    return f"class {index} is {one!r}, not {another!r}"
        return None


class _Entry(msgspec.Struct):
    class_index: int
    name: str
    synset: str | None = None


def read_labels(file: Path) -> Labels:
    """Read class names: text, one per line; or JSON, a list of names or of entries.

    A JSON entry has ``class_index`` and ``name``, and may have ``synset``; entries may stand in any
    order. Two classes may have the same name (ImageNet's "crane").

    Raises:
        DataError: Not readable, not UTF-8, empty, a name that is blank, or class indices that are
            not 0, 1, 2, ... each once.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: not a readable labels file: {error}") from error
    if file.suffix.lower() == ".json":
        return _read_json(file, text)
    lines = [line.strip() for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return _checked(file, Labels(names=tuple(lines)))


def _read_json(file: Path, text: str) -> Labels:
    try:
        found = msgspec.json.decode(text, type=list[str | _Entry])
    except msgspec.DecodeError as error:
        raise DataError(f"{file}: {error}") from error
    names = [entry for entry in found if isinstance(entry, str)]
    entries = sorted((e for e in found if isinstance(e, _Entry)), key=lambda e: e.class_index)
    if names and entries:
        raise DataError(f"{file}: expected names or entries with class_index, found both")
    if names:
        return _checked(file, Labels(names=tuple(names)))
    for expected, entry in enumerate(entries):
        if entry.class_index != expected:
            raise DataError(
                f"{file}: expected class indices 0..{len(entries) - 1}, each once; "
                f"found {entry.class_index} where {expected} should stand"
            )
    synsets = [entry.synset for entry in entries if entry.synset]
    if 0 < len(synsets) < len(entries):
        raise DataError(f"{file}: {len(entries) - len(synsets)} of its classes have no synset")
    if len(set(synsets)) < len(synsets):
        raise DataError(f"{file}: two classes have the same synset")
    named = tuple(entry.name for entry in entries)
    return _checked(file, Labels(names=named, synsets=tuple(synsets) or None))


def _checked(file: Path, labels: Labels) -> Labels:
    if not labels.names:
        raise DataError(f"{file}: no class names in it")
    for index, name in enumerate(labels.names):
        if not name.strip():
            raise DataError(f"{file}: the name of class {index} is empty")
    return labels
