"""Image files and their classes: a folder per class, or a table of files and labels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from ..core.errors import DataError
from .images import SUFFIXES, ImageFile, list_images
from .label_table import LabelTable, read_label_table
from .parts import Part, Read

SPLITS: Final = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "test": "test",
}  # fmt: skip

_TABLES: Final = ("labels.csv", "labels.json")
# 3_cat, 3: a folder that begins with its class's index.
_NUMBERED: Final = re.compile(r"([0-9]{1,9})(?:_(.+))?")


def find_folders(
    path: Path, labels: Path | None, classes: Sequence[str] | None
) -> list[Part]:  # fmt: skip
    """Return the data sets of image files that a folder, or a table's path, holds.

    Raises:
        DataError: The path is neither.
    """
    if path.is_file():
        if labels is not None or path.suffix.lower() not in {".csv", ".json"}:
            raise DataError(
                f"{path}: expected a folder, a table (.csv or .json) or a file of CIFAR or IDX"
            )
        path, labels = path.parent, path
    inside = [entry for entry in sorted(path.iterdir()) if not entry.name.startswith(".")]
    below = [entry for entry in inside if entry.is_dir()]
    named = [entry for entry in below if entry.name.lower() in SPLITS]
    # A class may be called "train"; one of folders is a part of a data set.
    parts = [entry for entry in named if _class_folders(entry)]
    if labels is None and named == below and (len(below) > 1 or parts):
        return _splits(path, below, classes)
    if labels is None and len(parts) > 1:
        other = next(entry.name for entry in below if entry not in named)
        raise DataError(
            f"{path}: {' and '.join(entry.name for entry in parts)} look like parts of a data set, "
            f"{other!r} does not; move it away, or give one part's path"
        )
    read = partial(_read, path, labels, classes)
    return [Part(format="image files", split="", read=read)]


def _splits(path: Path, below: Sequence[Path], classes: Sequence[str] | None) -> list[Part]:
    parts: dict[str, Part] = {}
    # One order of the classes for all: a class that a part lacks must not move the others.
    names = classes
    if names is None and not any(_tables(place) for place in below):
        folders = {entry.name for place in below for entry in _class_folders(place)}
        names = _ordered(sorted(folders))[1] if folders else None
    for place in below:
        split = SPLITS[place.name.lower()]
        if split in parts:
            raise DataError(f"{path}: two folders are the split {split!r}, one is {place.name!r}")
        read = partial(_read, place, None, names)
        parts[split] = Part(format="image files", split=split, read=read)
    return list(parts.values())


def _read(path: Path, labels: Path | None, classes: Sequence[str] | None) -> Read:
    folders = _class_folders(path)
    tables = [labels] if labels is not None else _tables(path)
    loose = any(
        entry.is_file() and entry.suffix.lower() in SUFFIXES and not entry.name.startswith(".")
        for entry in path.iterdir()
    )
    if labels is None and folders and not loose:
        found = _by_folder(path, folders, classes)
        for table in tables:
            _check_agreement(path, found, table)
        return found
    if not tables:
        if folders:
            raise DataError(
                f"{path}: some images stand in class folders, some do not; move them into the "
                "folder of their class, or give the path of a table of files and labels"
            )
        list_images(path)  # says so where there are none
        raise DataError(
            f"{path}: images without classes; expected a folder per class, or a table of files "
            f"and labels ({' or '.join(_TABLES)})"
        )
    if len(tables) > 1:
        raise DataError(
            f"{path}: found {' and '.join(table.name for table in tables)}; name the one that "
            "counts by its path, in the folder's place"
        )
    return _by_table(path, read_label_table(tables[0]), classes)


def _by_folder(path: Path, folders: Sequence[Path], classes: Sequence[str] | None) -> Read:
    names = [folder.name for folder in folders]
    keys, shown = _ordered(names)
    images: list[ImageFile] = []
    labels: list[int] = []
    wanted = list(shown if classes is None else classes)
    places = {name: index for index, name in enumerate(wanted)}
    for key, name in zip(keys, shown, strict=True):
        place = places.get(name, places.get(key))
        if place is None and (numbered := _NUMBERED.fullmatch(key)):
            # Of folders with indices only some are here: the index and the name must be one class.
            named = places.get(numbered[2] or numbered[1])
            place = named if named == int(numbered[1]) else None
        if place is None:
            raise DataError(
                f"{path / key}: no class of that name; expected {', '.join(wanted[:8])}"
                f"{', ...' if len(wanted) > 8 else ''}"
            )
        try:
            inside = list_images(path / key)
        except DataError as error:
            raise DataError(f"class folder without images: {error}") from error
        images += [ImageFile(path=file.path, name=f"{key}/{file.name}") for file in inside]
        labels += [place] * len(inside)
    return Read(
        classes=tuple(wanted), labels=np.asarray(labels, np.int64), files=tuple(images), folder=path
    )


def _ordered(names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the folders in the order of their classes, and what the classes are called.

    Folders that all begin with their class's index (``0_cat``, ``10``) are taken in its order,
    others in that of their names.
    """
    found = [_NUMBERED.fullmatch(name) for name in names]
    pairs = sorted(
        (int(match[1]), match[2] or match[1], name)
        for match, name in zip(found, names, strict=True)
        if match is not None
    )
    shown = tuple(label for _, label, _ in pairs)
    if [index for index, _, _ in pairs] == list(range(len(names))) and len(set(shown)) == len(
        names
    ):
        return tuple(name for _, _, name in pairs), shown
    return tuple(sorted(names)), tuple(sorted(names))


def _by_table(path: Path, table: LabelTable, classes: Sequence[str] | None) -> Read:
    images = list_images(path)
    names = table.classes if classes is None else tuple(classes)
    places = {name: index for index, name in enumerate(names)}
    there = {image.name for image in images}
    absent = [name for name in table.labels if name not in there]
    if absent:
        raise DataError(
            f"{table.file}: {len(absent)} of {len(table.labels)} files are not below {path}, "
            f"first {absent[0]!r}"
        )
    without = [image.name for image in images if image.name not in table.labels]
    if without:
        raise DataError(
            f"{table.file}: {len(without)} of {len(images)} images have no entry, first "
            f"{without[0]!r}; add them, or move the images away"
        )
    strange = sorted({label for label in table.labels.values() if label not in places})
    if strange:
        raise DataError(f"{table.file}: label {strange[0]!r} is none of the {len(names)} classes")
    labels = np.asarray([places[table.labels[image.name]] for image in images], np.int64)
    return Read(classes=names, labels=labels, files=images, folder=path, table=table.file)


def _check_agreement(path: Path, found: Read, file: Path) -> None:
    """Refuse a table that says of an image's class something else than its folder does."""
    table = read_label_table(file)
    assert found.files is not None
    listed = [image for image in found.files if image.name in table.labels]
    counts = "name the table that counts by its path, in the folder's place, or move it away"
    if not listed:
        raise DataError(
            f"{file}: lists none of the images below {path}; its first file is "
            f"{next(iter(table.labels))!r}, the first image {found.files[0].name!r}; mend the "
            "names, or move it away"
        )
    folder_of: dict[str, str] = {}
    label_of: dict[str, str] = {}
    for image in listed:
        label, own = table.labels[image.name], image.name.split("/", 1)[0]
        folder, other = folder_of.setdefault(label, own), label_of.setdefault(own, label)
        if folder != own:
            raise DataError(
                f"{path}: two answers to what the classes are: {file.name} gives {label!r} to "
                f"images of the folders {folder!r} and {own!r}; {counts}"
            )
        if other != label:
            raise DataError(
                f"{path}: two answers to what the classes are: {file.name} gives {other!r} and "
                f"{label!r} to images of the folder {own!r}; {counts}"
            )


def _class_folders(path: Path) -> list[Path]:
    return [entry for entry in sorted(path.iterdir()) if entry.is_dir() and entry.name[0] != "."]


def _tables(path: Path) -> list[Path]:
    return [path / name for name in _TABLES if (path / name).is_file()]
