"""A data set for training and evaluation: images with a class each, whatever files they come in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import DataError
from ..core.files import sha256_bytes, sha256_file
from ..core.text import as_utf8
from .cifar import find_cifar
from .folders import find_folders
from .idx import find_idx
from .images import ImageFile
from .parts import Part, Read


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Images and their classes.

    Attributes:
        name: What reports call it.
        classes: Class names by index.
        labels: Class indices, shape (N,), int64.
        files: The image files, N; None where the images are in memory.
        pixels: Shape (N, H, W, C), uint8, C 1 or 3 (RGB); None where they are files.
        folder: Where the files' names begin; None in memory.
        table: What says the classes, where the folders' names do not.
    """

    name: str
    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    files: tuple[ImageFile, ...] | None = None
    pixels: NDArray[np.uint8] | None = None
    folder: Path | None = None
    table: Path | None = None

    def __post_init__(self) -> None:
        """Refuse what does not belong together."""
        if (self.files is None) == (self.pixels is None):
            raise ValueError("a data set has image files or pixels, one of the two")
        count = len(self.files if self.pixels is None else self.pixels)  # type: ignore[arg-type]
        if count != len(self.labels):
            raise ValueError(f"{count} images have {len(self.labels)} labels")
        if count and not 0 <= self.labels.min() <= self.labels.max() < len(self.classes):
            raise ValueError(f"labels must lie in 0..{len(self.classes) - 1}")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many images each class has, shape (classes,)."""
        return np.bincount(self.labels, minlength=len(self.classes)).astype(np.int64)

    def source(self, index: int) -> Path | NDArray[np.uint8]:
        """Return what ``runtimes.preprocess.to_pixels`` reads: a path, or codes (H, W, C)."""
        if self.files is not None:
            return self.files[index].path
        assert self.pixels is not None
        codes: NDArray[np.uint8] = self.pixels[index]
        return codes

    def name_of(self, index: int) -> str:
        """Return what reports call an image: its path below the folder, or its place."""
        return f"image {index}" if self.files is None else self.files[index].name

    def digest(self, index: int) -> str:
        """Return the SHA-256 of an image's file, or of its codes and their shape.

        Raises:
            OSError: The file cannot be read.
        """
        if self.files is not None:
            return sha256_file(self.files[index].path)
        assert self.pixels is not None
        shape = repr(self.pixels.shape[1:]).encode()
        return sha256_bytes(shape + self.pixels[index].tobytes())

    def subset(self, indices: Sequence[int] | NDArray[np.integer[Any]]) -> Dataset:
        """Return the images at ``indices``, in that order; the classes stay as they are."""
        chosen = np.asarray(indices, np.int64)
        return Dataset(
            name=self.name,
            classes=self.classes,
            labels=self.labels[chosen],
            files=None if self.files is None else tuple(self.files[i] for i in chosen.tolist()),
            pixels=None if self.pixels is None else self.pixels[chosen],
            folder=self.folder,
            table=self.table,
        )


def open_dataset(
    path: Path,
    *,
    labels: Path | None = None,
    split: str | None = None,
    classes: Sequence[str] | None = None,
) -> Dataset:
    """Open a data set; its format is found from what lies in the folder.

    Args:
        path: As for ``open_splits``.
        labels: Likewise.
        split: Which of its parts, where it has several: "train", "test", ...
        classes: Likewise.

    Raises:
        DataError: It cannot be opened, or has several parts and ``split`` names none of them.
    """
    parts = open_splits(path, labels=labels, classes=classes)
    if split is None and len(parts) == 1:
        return next(iter(parts.values()))
    if split in parts:
        return parts[split]
    has = ", ".join(name or "no name" for name in parts)
    asked = "several; name one of them" if split is None else f"no {split!r}"
    raise DataError(f"{path}: found {asked}: its splits are: {has}")


def open_splits(
    path: Path, *, labels: Path | None = None, classes: Sequence[str] | None = None
) -> dict[str, Dataset]:
    """Open all parts of a data set.

    Args:
        path: A folder with a folder of images per class; one with ``train`` and ``val`` or
            ``test`` that are such folders; one of CIFAR-10's or CIFAR-100's files, binary or
            python; one of MNIST's IDX files, also ``.gz``; a folder of images with a table
            ``labels.csv`` or ``labels.json`` of ``file`` and ``label``; or one such file.
        labels: A table for a folder of images; needed where it is called otherwise.
        classes: Class names in the order that the indices shall have. Files that hold indices
            only have them for names: "0", "1", ...

    Returns:
        Data sets by the name of the split, "train" first; by "" where there is no split.

    Raises:
        DataError: Nothing that can be opened, damaged, a class folder without images, or more than
            one thing that it could be; the message names the choice.
    """
    if not path.exists():
        raise DataError(f"{path}: expected a data set, found no file or folder of that name")
    found = find_cifar(path) + find_idx(path)
    if labels is not None or not found:
        if labels is not None and found:
            raise DataError(f"{path}: holds {found[0].format}, which takes no table of labels")
        found = find_folders(path, labels, classes)
    formats = list(dict.fromkeys(part.format for part in found))
    if len(formats) > 1:
        raise DataError(
            f"{path}: expected one data set, found {' and '.join(formats)}; move each into a "
            "folder of its own"
        )
    found.sort(key=lambda part: (part.split != "train", part.split))
    return {part.split: _opened(path, part, classes) for part in found}


def _opened(path: Path, part: Part, classes: Sequence[str] | None) -> Dataset:
    read = part.read()
    names, labels = read.classes, read.labels
    if not len(labels):
        raise DataError(f"{path}: no images in it")
    if read.files is None and classes is not None:
        labels = _renumbered(path, read, classes)
        names = tuple(classes)
    name = as_utf8(path.name or str(path))
    return Dataset(
        name=f"{name}/{part.split}" if part.split else name,
        classes=names,
        labels=labels,
        files=read.files,
        pixels=read.pixels,
        folder=read.folder,
        table=read.table,
    )


def _renumbered(path: Path, read: Read, classes: Sequence[str]) -> NDArray[np.int64]:
    """Return the labels of a file of pixels by another order of its classes' names."""
    places = {name: index for index, name in enumerate(classes)}
    used = [read.classes[index] for index in np.unique(read.labels).tolist()]
    strange = next((name for name in used if name not in places), None)
    if strange is not None:
        raise DataError(
            f"{path}: its class {strange!r} is none of {len(classes)}, which are "
            f"{', '.join(classes[:8])}{', ...' if len(classes) > 8 else ''}"
        )
    return np.asarray([places.get(name, -1) for name in read.classes], np.int64)[read.labels]
