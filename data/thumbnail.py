"""An image file made small enough to stand in a page."""

from __future__ import annotations

import io
from typing import Final

from ..core.preprocess import Preprocess
from ..runtimes.images import ImageSource, read_image

# What is smaller than this loses too much in a JPEG, and is small as a PNG.
_TINY: Final = 64


def thumbnail(
    image: ImageSource, *, longest: int, color: Preprocess | None = None
) -> tuple[str, bytes]:
    """Return an image's media type and its bytes, at most ``longest`` px on either side.

    Args:
        image: A file in any format that can be predicted on, or codes (H, W, C).
        longest: In px; a smaller image keeps its size.
        color: Says whether it is shown upright, and whether in grey.

    Raises:
        ImageError: It cannot be read.
    """
    shown = read_image(image, color or Preprocess())
    tiny = max(shown.size) <= _TINY
    shown.thumbnail((longest, longest))
    out = io.BytesIO()
    if tiny:
        shown.save(out, "PNG", optimize=True)
        return "image/png", out.getvalue()
    shown.save(out, "JPEG", quality=78, optimize=True)
    return "image/jpeg", out.getvalue()
