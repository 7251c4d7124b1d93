"""One pass over the calibration images: ranges, and the fingerprint that goes with the bundle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import onnx

from ..bundle.manifest import Fingerprint
from ..calibration.collect import collect_ranges
from ..core.errors import CalibrationError, ImageError
from ..core.files import sha256_file
from ..core.preprocess import Preprocess
from ..core.progress import Progress
from ..core.ranges import CalibrationMethod, RangeTable
from ..core.values import Logits, Pixels, Tensor
from ..data.images import ImageFile
from ..data.stream import stream_pixels

PIXEL_BINS: Final = 32
CONFIDENCE_BINS: Final = 20


def calibrate(
    model: onnx.ModelProto,
    images: Sequence[ImageFile],
    *,
    preprocess: Preprocess,
    size: tuple[int, int],
    method: CalibrationMethod,
    seed: int,
    progress: Progress,
) -> tuple[RangeTable, Fingerprint]:
    """Return the ranges of a float graph's activations over images, and what the images were.

    Images that cannot be read are left out, and said.

    Raises:
        CalibrationError: None of them could be read.
    """
    sketch = _Sketch(preprocess.channels)
    failed: list[ImageError] = []

    def tensors() -> Iterator[tuple[str, Tensor]]:
        stream = stream_pixels(images, preprocess, size=size)
        for batch in progress.track(stream, "calibrating", len(images)):
            failed.extend(error for _, error in batch.errors)
            for image, pixels in zip(batch.images, batch.pixels, strict=True):
                sketch.add_pixels(pixels)
                yield sha256_file(image.path), preprocess.normalize(pixels[None])

    try:
        table = collect_ranges(
            model, tensors(), method=method, seed=seed, on_logits=sketch.add_logits
        )
    except CalibrationError:
        if failed:
            raise CalibrationError(
                f"none of {len(images)} calibration images can be used, e.g. {failed[0]}"
            ) from failed[0]
        raise
    for error in failed[:3]:
        progress.note(f"calibration left out {error}")
    if len(failed) > 3:
        progress.note(f"calibration left out {len(failed) - 3} more images")
    return table, sketch.fingerprint()


class _Sketch:
    def __init__(self, channels: int) -> None:
        self._images = 0
        self._pixels = np.zeros((channels, PIXEL_BINS), np.int64)
        self._confidence = np.zeros(CONFIDENCE_BINS, np.int64)
        self._classes = np.zeros(0, np.int64)

    def add_pixels(self, pixels: Pixels) -> None:
        """Take in one image (H, W, C)."""
        self._images += 1
        for channel in range(len(self._pixels)):
            codes = pixels[..., channel].ravel() // (256 // PIXEL_BINS)
            self._pixels[channel] += np.bincount(codes, minlength=PIXEL_BINS)

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
        return Fingerprint(
            images=self._images,
            pixel_histogram=tuple(tuple(row.tolist()) for row in self._pixels),
            confidence_histogram=tuple(self._confidence.tolist()),
            class_counts=tuple(self._classes.tolist()),
        )
