"""How far apart two histograms over images are, and how far chance alone moves that.

Every distance is the largest difference between two shares, so that it reads as "so many points of
the images (of a pixel's codes, of the answers) lie elsewhere".

The unit is the image, however many pixels it has. Of the spread from image to image a histogram
that was added up knows nothing; it is taken to be the largest that its shares allow, which is that
of images each of which lies in one bin altogether: whatever f, the variance of an image's mean of
f is at most that of f at one of its pixels. So the bounds are cautious for pixels, and as they
should be for confidences and answers, of which an image has one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

Distance = Literal["order", "sets", "runs"]
"""The differences of shares that are looked at.

- order: of the values up to some value (Kolmogorov's distance).
- sets: of any set of bins (total variation).
- runs: of any bins that are neighbours (Kuiper's distance).
"""

Shares = NDArray[np.float64]

_DRAWS: Final = 10_000
# A quantile with fewer draws beyond it is not read off the draws.
_BEYOND: Final = 10
_CELLS: Final = 1 << 20  # of a block of draws; bounds the memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A distance.

    Attributes:
        distance: Over which sets of bins the largest difference is taken.
        slack: For "order": by how many bins each image may have moved for another reason. What
            lies up to a bin is compared with what lies up to ``slack`` bins further.
    """

    distance: Distance
    slack: int = 0

    def between(self, one: Shares, other: Shares) -> Shares:
        """Return the distance of shares, shape (..., bins); each row adds up to 1. Shape (...)."""
        if self.distance != "order":
            return self._widest(one - other)
        first, second = one.cumsum(-1), other.cumsum(-1)
        further, short = self._apart(first, second), self._apart(second, first)
        found: Shares = np.maximum(np.maximum(further.max(-1), short.max(-1)), 0.0)
        return found

    def deviation(self, one: Shares, other: Shares) -> Shares:
        """Return by how much the distance can change at most where shares change by these.

        Args:
            one: Differences of shares, shape (..., bins); each row adds up to 0.
            other: Likewise, of the other side.
        """
        if self.distance != "order":
            return self._widest(one - other)
        first, second = one.cumsum(-1), other.cumsum(-1)
        further, short = self._apart(first, second), self._apart(second, first)
        found: Shares = np.maximum(np.abs(further).max(-1), np.abs(short).max(-1))
        return found

    def _apart(self, lower: Shares, upper: Shares) -> Shares:
        return lower[..., : lower.shape[-1] - self.slack] - upper[..., self.slack :]

    def _widest(self, difference: Shares) -> Shares:
        if self.distance == "sets":
            found: Shares = np.abs(difference).sum(-1) / 2
            return found
        upto = difference.cumsum(-1)
        widest: Shares = np.maximum(upto.max(-1), 0.0) - np.minimum(upto.min(-1), 0.0)
        return widest


class Chance:
    """How far the distance of two samples lies from the true one, by resampling images.

    Both samples are drawn again, each image from one bin; half an image is added to every bin,
    since one that was not seen may still be rare. For the fixed seed, the same every time.
    """

    def __init__(
        self, measure: Measure, one: Shares, images: int, other: Shares, others: int
    ) -> None:
        """Resample.

        Args:
            measure: The distance.
            one: Shares of the first sample, shape (bins,).
            images: How many images it has.
            other: Of the second.
            others: Likewise.
        """
        random = np.random.default_rng(0)
        bins = one.size
        p, q = (_smoothed(shares, n) for shares, n in ((one, images), (other, others)))
        found = []
        left = _DRAWS
        while left:
            block = min(left, max(1, _CELLS // bins))
            left -= block
            first = random.multinomial(images, p, block) / images - p
            second = random.multinomial(others, q, block) / others - q
            found.append(measure.deviation(first, second))
        self._sorted = np.sort(np.concatenate(found))
        self._spread = math.sqrt(1 / images + 1 / others)

    @property
    def mean(self) -> float:
        """How far the distance lies from the true one on average: a distance of equals as well."""
        return float(self._sorted.mean())

    def margin(self, alpha: float) -> float:
        """Return what the deviation exceeds with probability ``alpha`` at most.

        Beyond what the draws resolve it is their mean and McDiarmid's inequality: one image moves
        the distance by 1 / images at most.
        """
        place = math.ceil((_DRAWS + 1) * (1 - alpha)) - 1
        if place < _DRAWS - _BEYOND:
            return float(self._sorted[place])
        return self.mean + self._spread * math.sqrt(math.log(1 / alpha) / 2)


def images_for(margin: float, images: int, others: int, room: float) -> tuple[int | None, int]:
    """Return how many images bring a margin down to ``room``.

    A margin shrinks with sqrt(1 / images + 1 / others).

    Args:
        margin: As it is now.
        images: Of the calibration.
        others: Of the field.
        room: A positive margin.

    Returns:
        The images of the field beside those of the calibration, None where no number would do; and
        the images of the calibration that would do with as many of the field.
    """
    wanted = (1 / images + 1 / others) * (room / margin) ** 2
    field = wanted - 1 / images
    return (math.ceil(1 / field) if field > 0 else None), math.ceil(2 / wanted)


def _smoothed(shares: Shares, images: int) -> Shares:
    raised = shares * images + 0.5
    found: Shares = raised / raised.sum()
    return found
