"""CIFAR-10's and CIFAR-100's files, binary and python.

Source: A. Krizhevsky, "The CIFAR-10 and CIFAR-100 datasets", dataset layout.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..core.errors import DataError
from .parts import Part, Read
from .safe_pickle import read_pickle

CIFAR10: Final = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip

_PIXELS: Final = 3 * 32 * 32
_BATCHES: Final = tuple(f"data_batch_{number}" for number in range(1, 6))
_MAX_BYTES: Final = 1 << 30


def find_cifar(path: Path) -> list[Part]:
    """Return the parts whose files lie in a folder, or the one that a file is."""
    if not path.is_dir():
        return _single(path)
    found: list[Part] = []
    for suffix, form in ((".bin", "binary"), ("", "python")):

        def there(name: str, suffix: str = suffix) -> list[Path]:
            file = path / f"{name}{suffix}"
            return [file] if file.is_file() else []

        read10 = partial(_binary, labels=1) if suffix else _python
        read100 = partial(_binary, labels=2) if suffix else _python
        parts: list[tuple[str, str, list[Path], Callable[[list[Path]], Read]]] = [
            ("CIFAR-10", "train", [file for name in _BATCHES for file in there(name)], read10),
            ("CIFAR-10", "test", there("test_batch"), read10),
            ("CIFAR-100", "train", there("train"), read100),
            ("CIFAR-100", "test", there("test"), read100),
        ]
        batches = parts[0][2]
        if 0 < len(batches) < len(_BATCHES):
            there_are = {file.stem for file in batches}
            missing = next(name for name in _BATCHES if name not in there_are)
            raise DataError(
                f"{path}: {missing}{suffix} of CIFAR-10's five is missing; to take a part of them, "
                "give one file"
            )
        found += [
            Part(format=f"{name}'s {form} files", split=split, read=partial(read, files))
            for name, split, files, read in parts
            if files
        ]
    return found


def _single(file: Path) -> list[Part]:
    if file.suffix == ".bin" and file.stem in {*_BATCHES, "test_batch"}:
        return [Part(format="CIFAR-10", split="", read=partial(_binary, [file], labels=1))]
    if file.suffix == ".bin" and file.stem in {"train", "test"}:
        return [Part(format="CIFAR-100", split="", read=partial(_binary, [file], labels=2))]
    if file.name in {*_BATCHES, "test_batch", "train", "test"}:
        return [Part(format="CIFAR", split="", read=partial(_python, [file]))]
    return []


def _binary(files: list[Path], labels: int) -> Read:
    """Read records of ``labels`` bytes, the last of which is the class, and 3072 of pixels."""
    record = labels + _PIXELS
    rows = []
    for file in files:
        data = _bytes(file)
        if not data or len(data) % record:
            raise DataError(
                f"{file}: expected records of {record} bytes, found {len(data)} bytes: "
                f"{len(data) % record or 'none'} left over"
            )
        rows.append(np.frombuffer(data, np.uint8).reshape(-1, record))
    table = np.concatenate(rows)
    classes = table[:, labels - 1].astype(np.int64)
    names_file = files[0].with_name("batches.meta.txt" if labels == 1 else "fine_label_names.txt")
    names = _text_names(names_file)
    return _read(files[0], table[:, labels:], classes, names, 10 if labels == 1 else 100)


def _bytes(file: Path) -> bytes:
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise DataError(f"{file}: more than {_MAX_BYTES >> 20} MiB are not read")
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: {error.strerror or error}") from error


def _python(files: list[Path]) -> Read:
    pixels: list[NDArray[np.uint8]] = []
    classes: list[NDArray[np.int64]] = []
    fine = False
    for file in files:
        batch = read_pickle(file)
        fields = batch if isinstance(batch, dict) else {}
        data = _field(fields, "data")
        fine = fine or _field(fields, "fine_labels") is not None
        labels = _field(fields, "fine_labels" if fine else "labels")
        if not (
            isinstance(data, np.ndarray)
            and data.dtype == np.uint8
            and data.ndim == 2
            and data.shape[1] == _PIXELS
            and isinstance(labels, list)
            and len(labels) == len(data) > 0
            and all(isinstance(label, int) and 0 <= label < 256 for label in labels)
        ):
            raise DataError(
                f"{file}: expected a dict with data (N, {_PIXELS}) uint8 and N labels, as CIFAR's "
                "python batches are"
            )
        pixels.append(data)
        classes.append(np.asarray(labels, np.int64))
    names = _python_names(files[0], fine)
    found = np.concatenate(classes)
    return _read(files[0], np.concatenate(pixels), found, names, 100 if fine else 10)


def _read(
    file: Path, rows: NDArray[np.uint8], labels: NDArray[np.int64],
    names: tuple[str, ...] | None, count: int,
) -> Read:  # fmt: skip
    if names is None:
        names = CIFAR10 if count == 10 else tuple(str(index) for index in range(count))
    if int(labels.max()) >= len(names):
        raise DataError(f"{file}: holds class {labels.max()}, expected 0..{len(names) - 1}")
    planes = rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return Read(classes=names, labels=labels, pixels=np.ascontiguousarray(planes))


def _field(fields: dict[Any, Any], name: str) -> Any:
    return fields.get(name.encode(), fields.get(name))


def _text_names(file: Path) -> tuple[str, ...] | None:
    if not file.is_file():
        return None
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: not readable class names: {error}") from error
    return tuple(line.strip() for line in lines if line.strip()) or None


def _python_names(batch: Path, fine: bool) -> tuple[str, ...] | None:
    file = batch.with_name("meta" if fine else "batches.meta")
    if not file.is_file():
        return None
    fields = read_pickle(file)
    names = _field(fields, "fine_label_names" if fine else "label_names") if fields else None
    if not isinstance(names, list) or not names:
        raise DataError(f"{file}: expected a dict with the class names, as CIFAR's is")
    return tuple(name.decode("utf-8") if isinstance(name, bytes) else str(name) for name in names)
