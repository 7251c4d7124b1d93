"""What a format's reader hands to ``open_dataset``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .images import ImageFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """A part that has been read; attributes as of ``Dataset``."""

    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    files: tuple[ImageFile, ...] | None = None
    pixels: NDArray[np.uint8] | None = None
    folder: Path | None = None
    table: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part that was found.

    Attributes:
        format: In words, such as "CIFAR-10's binary files".
        split: "train", "test", ...; "" where there is only one.
        read: Reads it.
    """

    format: str
    split: str
    read: Callable[[], Read]
