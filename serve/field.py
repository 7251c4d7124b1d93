"""A sketch of the images that a server sees, in the form of the calibration fingerprint.

Counts only: no image, and nothing that one could be made of again, is kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from ..core.fingerprint import CONFIDENCE_BINS, PIXEL_BINS, Fingerprint
from ..core.values import Pixels
from ..core.version import VERSION
from ..runtimes import Prediction
from .counts import Counts
from .model import Model


class FieldSketch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a server saw since it took its bundle.

    Attributes:
        bundle_sha256: Hash of the bundle's manifest.
        tool: Version of edgecls.
        fingerprint: Of the images that were answered; confidences and classes are those of the
            bundle's own model, where the calibration's are the float model's.
    """

    bundle_sha256: str
    tool: str
    fingerprint: Fingerprint


def pixel_counts(pixels: Pixels) -> list[int]:
    """Return how often a channel's codes fall into each bin, (C x bins), for pixels (H, W, C)."""
    channels = pixels.shape[2]
    shift = np.arange(channels, dtype=np.int16) * 256
    codes = np.bincount((pixels + shift).ravel(), minlength=channels * 256)
    return [int(count) for count in codes.reshape(channels * PIXEL_BINS, -1).sum(axis=1)]


def count_image(counts: Counts, bundle: str, pixels: Sequence[int], found: Prediction) -> None:
    """Add an answered image to the sketch; not what a bundle answered that was replaced since.

    Args:
        counts: Where it is kept.
        bundle: Hash of the one that answered.
        pixels: What ``pixel_counts`` gave.
        found: The answer.
    """
    if counts.bundle != bundle:
        return
    top = found.top1
    counts.add("field_images")
    counts.add_all("field_pixels", pixels)
    counts.add("field_confidence", at=min(int(top.score * CONFIDENCE_BINS), CONFIDENCE_BINS - 1))
    counts.add("field_classes", at=top.index)


def field_sketch(counts: Counts, model: Model) -> FieldSketch:
    """Return what all processes that run the same bundle saw."""
    sha256 = model.sha256
    channels = model.predictor.bundle.manifest.preprocess.channels
    pixels = counts.total("field_pixels", length=channels * PIXEL_BINS, bundle=sha256)
    rows = [pixels[at : at + PIXEL_BINS] for at in range(0, len(pixels), PIXEL_BINS)]
    return FieldSketch(
        bundle_sha256=sha256,
        tool=VERSION,
        fingerprint=Fingerprint(
            images=counts.total("field_images", bundle=sha256)[0],
            pixel_histogram=tuple(tuple(row) for row in rows),
            confidence_histogram=tuple(counts.total("field_confidence", bundle=sha256)),
            class_counts=tuple(counts.total("field_classes", length=model.classes, bundle=sha256)),
        ),
    )
