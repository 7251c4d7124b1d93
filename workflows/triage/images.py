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

# The sum of libjpeg's luminance table at quality 50, from which it scales all others (ITU-T T.81,
# table K.1).
_BASE_SUM: Final = 3688


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
    """Return the quality (1..100) for which libjpeg writes about this image's table; else None.

    Source: libjpeg's jpeg_quality_scaling: a table is the base one times 50 / q below quality 50,
    times (2 - q / 50) above.
    """
    tables = getattr(image, "quantization", None)
    if not tables:
        return None
    share = float(sum(tables[0])) / _BASE_SUM
    return round(min(100.0, max(1.0, 50 / share if share > 1 else 100 - 50 * share)))
