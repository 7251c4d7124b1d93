"""MNIST's IDX files, also Fashion-MNIST's, KMNIST's and EMNIST's.

Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits", file formats.
"""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from ..core.errors import DataError
from .parts import Part, Read

MAX_BYTES: Final = 4 << 30

_UNSIGNED_BYTE: Final = 8
_SPLITS: Final = {"train": "train", "t10k": "test", "test": "test"}
_IMAGES: Final = re.compile(r"(?P<prefix>.*?)[-_.]?images[-.]idx3[-.]ubyte(?P<packed>\.gz)?")


def read_idx(file: Path, axes: int) -> NDArray[np.uint8]:
    """Return the array of unsigned bytes in an IDX file, unpacked where its name ends in .gz.

    Args:
        file: What to read.
        axes: How many the array must have: 1 for labels, 3 for images.

    Raises:
        DataError: Not readable, of another type or number of axes, or of another length than its
            header announces.
    """
    try:
        with gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb") as stream:
            return _read(file, stream, axes)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file}: not a readable IDX file: {error}") from error


def write_idx(array: NDArray[np.uint8]) -> bytes:
    """Return an array of unsigned bytes as an IDX file."""
    header = struct.pack(f">HBB{array.ndim}I", 0, _UNSIGNED_BYTE, array.ndim, *array.shape)
    return header + np.ascontiguousarray(array).tobytes()


def find_idx(path: Path) -> list[Part]:
    """Return the pairs of images and labels in a folder, or the one to which a file belongs.

    Where a file lies there packed and unpacked, the unpacked one is read.
    """
    folder = path if path.is_dir() else path.parent
    candidates = sorted(folder.iterdir()) if path.is_dir() else [path]
    found: dict[str, Part] = {}
    for file in candidates:
        match = _IMAGES.fullmatch(file.name)
        if match is None or (match["packed"] and file.with_suffix("").exists() and path.is_dir()):
            continue
        name = match["prefix"]
        words = re.split(r"[-_.]", name)
        split = next((_SPLITS[word] for word in words if word in _SPLITS), name)
        if split in found:
            raise DataError(f"{folder}: two files hold the images of {split!r}, one is {file.name}")
        found[split] = Part(
            format="IDX files", split=split if path.is_dir() else "", read=partial(_pair, file)
        )
    return list(found.values())


def _pair(images: Path) -> Read:
    named = images.name.replace("images", "labels").replace("idx3", "idx1")
    labels = images.with_name(named)
    if not labels.exists():
        other = named[:-3] if named.endswith(".gz") else f"{named}.gz"
        labels = images.with_name(other)
    if not labels.exists():
        raise DataError(f"{images}: its labels are missing; expected {named} beside it")
    pixels, classes = read_idx(images, 3), read_idx(labels, 1)
    if len(pixels) != len(classes):
        raise DataError(f"{images}: {len(pixels)} images, and {len(classes)} labels in {labels}")
    count = int(classes.max(initial=0)) + 1
    return Read(
        classes=tuple(str(index) for index in range(max(count, 10))),
        labels=classes.astype(np.int64),
        pixels=pixels[..., None],
    )


def _read(file: Path, stream: BinaryIO | gzip.GzipFile, axes: int) -> NDArray[np.uint8]:
    size = 4 * (axes + 1)
    header = stream.read(size)
    expected = struct.pack(">HBB", 0, _UNSIGNED_BYTE, axes)
    if len(header) != size or header[:4] != expected:
        raise DataError(
            f"{file}: expected an IDX file of unsigned bytes with {axes} axes (it starts with "
            f"{expected.hex()}), found {header[:4].hex() or 'an empty file'}"
        )
    shape = struct.unpack(f">{axes}I", header[4:])
    length = 1
    for axis in shape:
        length *= axis
    if length > MAX_BYTES or 0 in shape[1:]:
        raise DataError(f"{file}: announces shape {shape}; at most {MAX_BYTES >> 30} GiB are read")
    # One byte more than announced, so that a file that goes on is found, and a bomb is not read.
    data = stream.read(length + 1)
    if len(data) != length:
        found = f"only {len(data)}" if len(data) < length else "more"
        raise DataError(f"{file}: its header announces {length} bytes, found {found}")
    return np.frombuffer(data, np.uint8).reshape(shape)
