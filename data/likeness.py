"""Finds pictures that are the same: copies in another encoding, size or brightness."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..core.values import Pixels

SAME: Final = 0.99
"""Correlation of two thumbnails from which on they count as the same picture."""

_SIDE: Final = 32


def thumbnail(pixels: Pixels) -> NDArray[np.float32]:
    """Return an image's perceptual hash: 32x32 px of luminance, mean 0, norm 1.

    The product of two is their correlation, which neither brightness nor contrast changes.

    Args:
        pixels: Shape (H, W, C), uint8.

    Returns:
        Shape (1024,), float32; zeros for an image of one colour, which is like no other.
    """
    grey = Image.fromarray(np.rint(pixels.mean(axis=2)).astype(np.uint8))
    small = np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float32).ravel()
    centred = small - small.mean()
    norm = float(np.linalg.norm(centred))
    # Less than half a code of contrast is noise of the encoder.
    return centred / norm if norm > 0.5 * _SIDE else np.zeros_like(centred)


def likest(
    found: NDArray[np.float32], known: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return for each thumbnail of ``found`` (N, 1024) the likest of ``known`` (M, 1024).

    Returns:
        Its index and the correlation, shape (N,) each.
    """
    products = found @ known.T
    index = products.argmax(axis=1)
    return index, np.take_along_axis(products, index[:, None], axis=1)[:, 0]
