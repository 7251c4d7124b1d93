"""Takes the fingerprint of images as they go by."""

from __future__ import annotations

import numpy as np

from ..core.fingerprint import CONFIDENCE_BINS, PIXEL_BINS, Fingerprint
from ..core.values import Logits, Pixels


class Sketch:
    """Counts what the fingerprint holds."""

    def __init__(self, channels: int) -> None:
        self._images = 0
        self._codes = np.zeros((channels, 256), np.int64)
        self._confidence = np.zeros(CONFIDENCE_BINS, np.int64)
        self._classes = np.zeros(0, np.int64)

    def add_pixels(self, pixels: Pixels) -> None:
        """Take in one image (H, W, C)."""
        self._images += 1
        for channel in range(len(self._codes)):
            self._codes[channel] += np.bincount(pixels[..., channel].ravel(), minlength=256)

    def add_logits(self, logits: Logits) -> None:
        """Take in the answer (1, classes) to one image."""
        wide = logits[0].astype(np.float64)
        if not self._classes.size:
            self._classes = np.zeros(wide.size, np.int64)
        self._classes[int(wide.argmax())] += 1
        confidence = 1.0 / np.exp(wide - wide.max()).sum()
        self._confidence[min(int(confidence * CONFIDENCE_BINS), CONFIDENCE_BINS - 1)] += 1

    def fingerprint(self) -> Fingerprint:
        """Return what was seen."""
        bins = self._codes.reshape(len(self._codes), PIXEL_BINS, -1).sum(axis=2)
        return Fingerprint(
            images=self._images,
            pixel_histogram=tuple(tuple(row.tolist()) for row in bins),
            confidence_histogram=tuple(self._confidence.tolist()),
            class_counts=tuple(self._classes.tolist()),
        )
