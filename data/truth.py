"""The right class of each image: from a file, or from the names of the folders."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..core.errors import DataError
from ..core.text import as_utf8
from .images import ImageFile
from .labels import Labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """Class indices by image name.

    Attributes:
        classes: One entry for each image.
        how: A sentence that says where they come from, for the user to read.
    """

    classes: dict[str, int]
    how: str

    def of(self, images: Iterable[ImageFile]) -> NDArray[np.int64]:
        """Return the class index of each image, shape (N,)."""
        return np.asarray([self.classes[image.name] for image in images], np.int64)


class _Entry(msgspec.Struct):
    file: str
    class_index: int


def read_truth(file: Path) -> dict[str, int]:
    """Read class indices by image name: a JSON list or a CSV table of ``file``, ``class_index``.

    Raises:
        DataError: Not readable, not of that form, an index that is negative, or a file with two.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: not a readable truth file: {error}") from error
    entries = _from_json(file, text) if file.suffix.lower() == ".json" else _from_csv(file, text)
    classes: dict[str, int] = {}
    for entry in entries:
        name = PurePosixPath(entry.file).as_posix()
        if entry.class_index < 0:
            raise DataError(f"{file}: class index {entry.class_index} of {entry.file!r} < 0")
        if classes.setdefault(name, entry.class_index) != entry.class_index:
            raise DataError(f"{file}: {entry.file!r} has two classes")
    if not classes:
        raise DataError(f"{file}: no entries in it")
    return classes


def match_truth(
    images: Sequence[ImageFile],
    *,
    num_classes: int,
    labels: Labels | None = None,
    truth: Path | None = None,
) -> Truth | None:
    """Find the class of each image.

    Without a truth file, the folders are matched as a whole: all by synset, or all by class name,
    or all by the index in ``N_name``; failing these in sorted order, where there are exactly as
    many folders as outputs. A mixture is refused.

    Args:
        images: All of the data set, before any choice: the order of the folders may count.
        num_classes: The model's outputs.
        labels: The model's class names, where known.
        truth: A file for ``read_truth``.

    Returns:
        None where no truth is claimed: no file, and no image stands in a folder.

    Raises:
        DataError: The truth is incomplete or cannot be matched, or an index has no output.
    """
    if labels is not None:
        labels.check(num_classes)
    if truth is not None:
        return _from_file(images, truth, num_classes)
    folders = sorted({image.folder for image in images})
    if folders == [""]:
        return None
    if "" in folders:
        loose = next(image.name for image in images if not image.folder)
        raise DataError(
            f"some images stand in class folders, some do not ({loose!r}); give --truth FILE"
        )
    indices, how = _match_folders(folders, labels, num_classes)
    for folder, index in indices.items():
        _check_index(f"folder {folder!r}", index, num_classes)
    return Truth(classes={image.name: indices[image.folder] for image in images}, how=how)


def match_classes(
    names: Sequence[str], labels: Labels | None, num_classes: int
) -> tuple[NDArray[np.int64], str]:
    """Return the model's output for each class of a data set that has indices, and how in words.

    By name where the model's labels have every one of the names (or synsets); else the data set's
    indices are the outputs.

    Raises:
        DataError: The data set has more classes than the model outputs.
    """
    if labels is not None:
        labels.check(num_classes)
        by_name = partial(_by_name, labels=labels)
        synsets = {synset: index for index, synset in enumerate(labels.synsets or ())}
        for rule, what in ((synsets.get, "synsets"), (by_name, "class names")):
            found = _matched(names, rule)
            if found:
                how = f"ground truth from the data set's names, which are the labels' {what}"
                return np.asarray([found[name] for name in names], np.int64), how
            known = [name for name in names if rule(name) is not None]
            if known:
                strange = next(name for name in names if name not in known)
                raise DataError(
                    f"{len(known)} of the data set's {len(names)} classes are among the labels' "
                    f"{what}, such as {known[0]!r}, others are not, such as {strange!r}: their "
                    "order says nothing; give them the model's names"
                )
    if len(names) > num_classes:
        raise DataError(f"the data set has {len(names)} classes, the model {num_classes} outputs")
    how = "ground truth from the data set's class indices, taken for the model's outputs"
    return np.arange(len(names), dtype=np.int64), how


def _from_file(images: Sequence[ImageFile], file: Path, num_classes: int) -> Truth:
    classes = read_truth(file)
    missing = [image.name for image in images if image.name not in classes]
    if missing:
        raise DataError(
            f"{file}: {len(missing)} of {len(images)} images have no entry, first {missing[0]!r}; "
            f"its names look like {next(iter(classes))!r}: they must start below the image folder"
        )
    for image in images:
        _check_index(f"{file}: {image.name!r}", classes[image.name], num_classes)
    return Truth(
        classes={image.name: classes[image.name] for image in images},
        how=f"ground truth from {as_utf8(file.name)}",
    )


def _match_folders(
    folders: Sequence[str], labels: Labels | None, num_classes: int
) -> tuple[dict[str, int], str]:
    names = "ground truth from the folders' names, which are the labels'"
    rules: list[tuple[str, str, Callable[[str], int | None]]] = []
    if labels is not None and labels.synsets is not None:
        synsets = {synset: index for index, synset in enumerate(labels.synsets)}
        rules.append(("among the labels' synsets", f"{names} synsets", synsets.get))
    if labels is not None:
        by_name = partial(_by_name, labels=labels)
        rules.append(("among the labels' class names", f"{names} class names", by_name))
    prefixed = "ground truth from the index at the start of the folders' names (N_name)"
    rules.append(("of the form N_name", prefixed, _by_prefix))
    for _, how, rule in rules:
        found = _matched(folders, rule)
        if found:
            if rule is _by_prefix and labels is not None:
                _check_names(found, labels)
            return found, how
    # A folder that is named like a class says that the order of the names is not that of the model.
    named = any(rule(folder) is not None for _, _, rule in rules[:-1] for folder in folders)
    if len(folders) == num_classes and not named:
        return _in_order(folders)
    strange = [[folder for folder in folders if rule(folder) is None] for _, _, rule in rules]
    fewest = min(strange, key=len)
    nearest = [what for (what, _, _), left in zip(rules, strange, strict=True) if left == fewest]
    raise DataError(
        f"{len(fewest)} of {len(folders)} folders match no class, such as {fewest[0]!r}, which is "
        f"not {' nor '.join(nearest)}, and the model has {num_classes} outputs; give --truth FILE, "
        "or rename them, all by one rule: to class names, or to N_name with the class's index N"
    )


def _check_names(found: dict[str, int], labels: Labels) -> None:
    """Refuse an index before a name that is another class's."""
    for folder, index in found.items():
        named = _by_name(folder.split("_", 1)[1], labels)
        if named is not None and named != index:
            raise DataError(
                f"folder {folder!r}: two answers to which class it is: {index} by its number, "
                f"{named} by the name {labels.names[named]!r}; rename the folders, or give "
                "--truth FILE"
            )


def _in_order(folders: Sequence[str]) -> tuple[dict[str, int], str]:
    how = (
        f"ground truth ASSUMED: no folder's name says its class, so the {len(folders)} folders, "
        "sorted by name, were taken for the model's outputs in order"
    )
    if all(folder.isdecimal() for folder in folders) and sorted(folders, key=int) != folders:
        how += " (as text: '10' comes before '2')"
    return {folder: index for index, folder in enumerate(folders)}, how


def _matched(
    folders: Sequence[str], index_of: Callable[[str], int | None]
) -> dict[str, int] | None:
    found: dict[str, int] = {}
    for folder in folders:
        index = index_of(folder)
        if index is None:
            return None
        found[folder] = index
    return found


def _by_name(folder: str, labels: Labels) -> int | None:
    wanted = _plain(folder)
    matches = [index for index, name in enumerate(labels.names) if _plain(name) == wanted]
    if len(matches) > 1:
        raise DataError(
            f"folder {folder!r}: classes {matches} all have this name; give --truth FILE"
        )
    return matches[0] if matches else None


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def _by_prefix(folder: str) -> int | None:
    found = re.match(r"([0-9]{1,9})_.", folder)
    return int(found[1]) if found else None


def _check_index(what: str, index: int, num_classes: int) -> None:
    if not 0 <= index < num_classes:
        raise DataError(f"{what}: class index {index}, the model has outputs 0..{num_classes - 1}")


def _from_json(file: Path, text: str) -> list[_Entry]:
    try:
        return msgspec.json.decode(text, type=list[_Entry])
    except msgspec.DecodeError as error:
        raise DataError(f"{file}: {error}") from error


def _from_csv(file: Path, text: str) -> list[_Entry]:
    try:
        rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        columns = rows.fieldnames or []
        if not {"file", "class_index"} <= set(columns):
            raise DataError(
                f"{file}: expected the columns file and class_index, found {', '.join(columns)}"
            )
        entries = []
        for row in rows:
            name, index = row["file"], row["class_index"]
            if not name or not re.fullmatch(r"\s*[0-9]{1,9}\s*", index or ""):
                raise DataError(
                    f"{file}, line {rows.line_num}: expected a file and a class index, "
                    f"found {name!r} and {index!r}"
                )
            entries.append(_Entry(file=name, class_index=int(index)))
    except csv.Error as error:
        raise DataError(f"{file}: not a readable CSV file: {error}") from error
    return entries
