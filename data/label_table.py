"""A table of image files and their labels: CSV with a header, or a JSON list of objects."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import msgspec

from ..core.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelTable:
    """What a table says.

    Attributes:
        file: Where it was read from.
        classes: Class names by index.
        labels: The class name of each file, by its path below the image folder.
    """

    file: Path
    classes: tuple[str, ...]
    labels: dict[str, str]


class _Entry(msgspec.Struct):
    file: str
    label: str | int | None = None
    class_index: int | None = None
    name: str | None = None


def read_label_table(file: Path) -> LabelTable:
    """Read ``file`` and ``label`` (a name), or ``file``, ``class_index`` and perhaps ``name``.

    Classes that are named only have the order of their names; with indices, an index that no file
    has is called "class N".

    Raises:
        DataError: Not readable, not of that form, a file with two labels, or a class with two
            names.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
        entries = _json(text) if file.suffix.lower() == ".json" else _csv(text)
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(
            f"{file}: expected a table of file and label, or of file and class_index: {error}"
        ) from error
    if not entries:
        raise DataError(f"{file}: no entries in it")
    indexed = all(entry.class_index is not None for entry in entries)
    if not indexed and any(entry.label is None for entry in entries):
        bad = next(entry.file for entry in entries if entry.label is None)
        raise DataError(f"{file}: {bad!r} has no label")
    classes = _indexed(file, entries) if indexed else _named(entries)
    labels: dict[str, str] = {}
    for entry in entries:
        name = PurePosixPath(entry.file).as_posix()
        label = str(entry.label) if entry.class_index is None else classes[entry.class_index]
        if labels.setdefault(name, label) != label:
            raise DataError(f"{file}: {entry.file!r} has two labels")
    return LabelTable(file=file, classes=classes, labels=labels)


def _named(entries: list[_Entry]) -> tuple[str, ...]:
    names = {str(entry.label) for entry in entries}
    numeric = all(name.isdecimal() for name in names)
    return tuple(sorted(names, key=int) if numeric else sorted(names))


def _indexed(file: Path, entries: list[_Entry]) -> tuple[str, ...]:
    names: dict[int, str] = {}
    for entry in entries:
        index = entry.class_index
        assert index is not None
        if not 0 <= index < 1_000_000:
            raise DataError(f"{file}: class index {index} of {entry.file!r}")
        name = entry.name or (None if entry.label is None else str(entry.label)) or f"class {index}"
        if names.setdefault(index, name) != name:
            raise DataError(f"{file}: class {index} is {names[index]!r} and {name!r}")
    shown = [names.get(index, f"class {index}") for index in range(max(names) + 1)]
    # Two classes may have one name (ImageNet's "crane"); a data set tells them apart.
    return tuple(
        f"{name} ({index})" if shown.count(name) > 1 else name for index, name in enumerate(shown)
    )


def _json(text: str) -> list[_Entry]:
    return msgspec.json.decode(text, type=list[_Entry])


def _csv(text: str) -> list[_Entry]:
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    columns = rows.fieldnames or []
    if "file" not in columns or not {"label", "class_index"} & set(columns):
        raise ValueError(f"found the columns {', '.join(columns) or 'none'}")
    found = []
    for row in rows:
        name, index = row["file"], row.get("class_index")
        if not name or (index is not None and not index.strip().isdecimal()):
            raise ValueError(f"line {rows.line_num}: found {name!r} and {index!r}")
        label = (row.get("label") or "").strip() or None
        found.append(
            _Entry(
                file=name,
                label=label,
                class_index=None if index is None else int(index),
                name=row.get("name"),
            )
        )
    return found
