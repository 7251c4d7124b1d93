"""Fingerprints of what each step makes of an image: the first that differs is the faulty step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..core.files import sha256_bytes
from ..core.preprocess import PIXEL_STEPS, PixelStep
from ..core.values import Pixels


def array_sha256(array: NDArray[Any]) -> str:
    """Return the SHA-256, in hexadecimal, of an array's dtype, shape and values in C order."""
    shape = "x".join(str(size) for size in array.shape)
    return sha256_bytes(f"{array.dtype.name} {shape}\n".encode() + array.tobytes())


class StepHashes:
    """Watches ``to_pixels`` and keeps the hash of what each step gave.

    Attributes:
        hashes: By step; after an error, of the steps before it.
    """

    def __init__(self) -> None:
        self.hashes: dict[PixelStep, str] = {}
        self._decoded: Pixels | None = None

    def __call__(self, step: PixelStep, found: Image.Image | Pixels) -> None:
        """Take what ``step`` gave."""
        codes = np.asarray(found)
        if step == "decode":
            self._decoded = codes
        self.hashes[step] = array_sha256(codes)

    def first_difference(self, expected: Mapping[PixelStep, str]) -> PixelStep | None:
        """Return the first step that gave something else than ``expected``; None where none did.

        A decoder that swaps the channels or turns the image by itself gets that step's name.
        """
        for step in PIXEL_STEPS:
            if self.hashes.get(step) != expected.get(step):
                return self._within_decode(expected) if step == "decode" else step
        return None

    def _within_decode(self, expected: Mapping[PixelStep, str]) -> PixelStep:
        if self._decoded is not None:
            for step, variant in _variants(self._decoded):
                if array_sha256(variant) == expected.get("decode"):
                    return step
        return "decode"


def _variants(codes: Pixels) -> Iterator[tuple[PixelStep, Pixels]]:
    """Yield an image, (H, W[, 3]), with its channels reversed, and in the seven other turns."""
    if codes.ndim == 3:
        yield "channel order", codes[:, :, ::-1]
    for turned in (codes, codes.swapaxes(0, 1)):
        yield "orientation", turned
        yield "orientation", turned[::-1]
        yield "orientation", turned[:, ::-1]
        yield "orientation", turned[::-1, ::-1]
