"""The images of both sides: which file was which, and how each is encoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Final

import numpy as np
from PIL import Image

from ...core.errors import DataError, ImageError
from ...data.images import ImageFile
from ...runtimes.images import open_image, read_regular_file

_LOOKED_AT: Final = 16

# The luminance table from which libjpeg scales all others: ITU-T T.81, table K.1.
_BASE: Final = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip


def stem(name: str) -> str:
    """Return an image's name without its ending: what a re-encoded file keeps."""
    return PurePosixPath(name).with_suffix("").as_posix()


def by_stem(names: Sequence[str], depth: int) -> dict[str, str]:
    """Return names by the last ``depth`` parts of their stems: folders above are another machine's.

    Raises:
        DataError: Two names have the same one.
    """
    found: dict[str, str] = {}
    for name in names:
        key = PurePosixPath(*PurePosixPath(stem(name)).parts[-depth:]).as_posix()
        other = found.setdefault(key, name)
        if other != name:
            raise DataError(
                f"{other!r} and {name!r} have the same name but for the folder above or the "
                "ending: which of them a re-encoded file was made from cannot be told; keep one"
            )
    return found


def find_names(wanted: Sequence[str], known: Sequence[str]) -> list[str | None]:
    """Return for each wanted name the known one that is it, or is it with another ending; or None.

    Raises:
        DataError: Two known names would do.
    """
    exact = set(known)
    depths = [len(PurePosixPath(name).parts) for name in wanted]
    stems = {depth: by_stem(known, depth) for depth in set(depths)}
    return [
        name if name in exact else stems[depth].get(stem(name))
        for name, depth in zip(wanted, depths, strict=True)
    ]


def originals_of(
    images: Sequence[ImageFile], originals: Sequence[ImageFile]
) -> tuple[ImageFile | None, ...]:
    """Return the original of each image, found by its name without the ending; else None.

    Raises:
        DataError: Two originals differ only in their ending.
    """
    known = {image.name: image for image in originals}
    found = find_names([image.name for image in images], list(known))
    return tuple(None if name is None else known[name] for name in found)


def encoding(images: Sequence[ImageFile]) -> str:
    """Return how images are encoded, e.g. "JPEG, quality about 10", as far as a few of them say."""
    kinds: Counter[str] = Counter()
    qualities = []
    for image in images[:: max(1, len(images) // _LOOKED_AT)][:_LOOKED_AT]:
        try:
            with open_image(image.name, read_regular_file(str(image.path))) as opened:
                kinds[str(opened.format)] += 1
                quality = jpeg_quality(opened)
        except ImageError:
            continue  # the comparison lists it
        if quality is not None:
            qualities.append(quality)
    text = " and ".join(kind for kind, _ in kinds.most_common()) or "unreadable"
    return f"{text}, quality about {np.median(qualities):.0f}" if qualities else text


def jpeg_quality(image: Image.Image) -> int | None:
    """Return the quality (1..100) whose table in libjpeg is nearest to this image's, else None.

    Source: libjpeg, jpeg_quality_scaling and jpeg_add_quant_table.
    """
    tables = getattr(image, "quantization", None)
    if not tables:
        return None
    wanted = sum(tables[0])
    return min(range(1, 101), key=lambda quality: abs(_table_sum(quality) - wanted))


def _table_sum(quality: int) -> int:
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return sum(min(max((entry * percent + 50) // 100, 1), 255) for entry in _BASE)
