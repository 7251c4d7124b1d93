"""An image file made small enough to stand in a page."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final

from ..core.preprocess import Preprocess
from ..runtimes.images import read_image

# What is smaller than this loses too much in a JPEG, and is small as a PNG.
_TINY: Final = 64


def thumbnail(file: Path, *, longest: int, color: Preprocess | None = None) -> tuple[str, bytes]:
    """Return an image's media type and its bytes, at most ``longest`` px on either side.

    Args:
        file: An image in any format that can be predicted on.
        longest: In px; a smaller image keeps its size.
        color: Says whether it is shown upright, and whether in grey.

    Raises:
        ImageError: It cannot be read.
    """
    image = read_image(file, color or Preprocess())
    tiny = max(image.size) <= _TINY
    image.thumbnail((longest, longest))
    out = io.BytesIO()
    if tiny:
        image.save(out, "PNG", optimize=True)
        return "image/png", out.getvalue()
    image.save(out, "JPEG", quality=78, optimize=True)
    return "image/jpeg", out.getvalue()
