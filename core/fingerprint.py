"""What the calibration images looked like, to compare field data with."""

from __future__ import annotations

from typing import Final

import msgspec

PIXEL_BINS: Final = 32
CONFIDENCE_BINS: Final = 20


class Fingerprint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Histograms over images, in counts.

    Attributes:
        images: How many.
        pixel_histogram: For each channel the counts of codes 0..255 in 32 bins of 8.
        confidence_histogram: The float model's top-1 probability, 20 bins of 0.05.
        class_counts: How often the float model answered each class.
    """

    images: int
    pixel_histogram: tuple[tuple[int, ...], ...]
    confidence_histogram: tuple[int, ...]
    class_counts: tuple[int, ...]

    def merge(self, other: Fingerprint) -> Fingerprint:
        """Return the fingerprint of the images of both.

        Raises:
            ValueError: They differ in their number of channels, bins or classes.
        """
        return Fingerprint(
            images=self.images + other.images,
            pixel_histogram=tuple(
                _sum(mine, theirs)
                for mine, theirs in zip(self.pixel_histogram, other.pixel_histogram, strict=True)
            ),
            confidence_histogram=_sum(self.confidence_histogram, other.confidence_histogram),
            class_counts=_sum(self.class_counts, other.class_counts),
        )


def _sum(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True))
