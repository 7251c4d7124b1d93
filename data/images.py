"""Which images a folder holds, and a seeded choice among them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..core.errors import DataError
from ..core.text import as_utf8

SUFFIXES: Final = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFile:
    """An image of a data set.

    Attributes:
        path: Where it is.
        name: Its path below the data set's folder, with forward slashes: what truth files, reports
            and the seeded choice call it. Bytes that are not UTF-8 are escaped.
    """

    path: Path
    name: str

    @property
    def folder(self) -> str:
        """The first folder of its name, which names its class; "" where there is none."""
        return self.name.rpartition("/")[0].partition("/")[0]


def list_images(folder: Path) -> tuple[ImageFile, ...]:
    """Return the images of a folder and all below it, sorted by name.

    Hidden files and folders (also macOS's ``._name``) are left out, and so are folders that are
    named like images. Links to folders are followed once: a loop ends.

    Raises:
        DataError: Not a folder, or no image in it.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: expected a folder of images, found no folder")
    found: list[ImageFile] = []
    seen: set[tuple[int, int]] = set()
    errors: list[OSError] = []
    for place, folders, files in os.walk(folder, followlinks=True, onerror=errors.append):
        status = Path(place).stat()
        identity = (status.st_dev, status.st_ino)
        if identity in seen:
            folders.clear()
            continue
        seen.add(identity)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                path = Path(place, name)
                below = path.relative_to(folder).as_posix()
                text = as_utf8(below)
                found.append(ImageFile(path=path, name=text))
    if errors:
        raise DataError(f"{errors[0].filename}: {(errors[0].strerror or 'unreadable').lower()}")
    if not found:
        raise DataError(
            f"{folder}: no images; looked for {', '.join(sorted(SUFFIXES))}, also in its folders"
        )
    return tuple(sorted(found, key=lambda image: image.name))


def select_images(
    images: Sequence[ImageFile], count: int | None, seed: int
) -> tuple[ImageFile, ...]:
    """Return ``count`` of the images, or all where there are fewer or ``count`` is None.

    Each name is hashed with the seed and the smallest hashes win: the choice depends neither on
    the order nor on the images that are not chosen, and a larger one contains a smaller one.

    Returns:
        Sorted by name.

    Raises:
        DataError: ``count`` is not positive.
    """
    if count is None:
        count = len(images)
    if count < 1:
        raise DataError(f"the number of images must be positive, found {count}")

    def rank(image: ImageFile) -> tuple[bytes, str]:
        return hashlib.sha256(f"{seed}:{image.name}".encode()).digest(), image.name

    return tuple(sorted(sorted(images, key=rank)[:count], key=lambda image: image.name))
