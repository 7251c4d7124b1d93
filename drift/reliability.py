"""Calibration of two models' confidence on the same images: the ECE of both, and its rise.

ECE (expected calibration error): in 15 bins of equal width of the confidence, the gap between the
mean confidence and the accuracy, averaged over the images (Guo et al. 2017, arXiv:1706.04599).
Bins of equal width, not of equal mass, because these need no second pass and merge exactly.

The rise has no bootstrap: where a model is well calibrated its gaps are near zero, where |gap| has
a kink, and a bootstrap of |gap| does not follow its distribution. In simulation its nominal 95 %
bound missed the rise in 39 to 90 % of samples (benchmarks/gate.py). So the bound is built from the
gaps themselves, which are plain means: a bin whose gap has a sure sign enters with that sign; one
whose sign is open enters with the worse of both.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from .answers import CONFIDENCE_ONE, Indices

BINS: Final = 15
# The share of alpha that is spent on the signs of the gaps.
_SIGNS: Final = 0.1

Reals = NDArray[np.float64]


class ConfidenceBin(msgspec.Struct, frozen=True, array_like=True):
    """Images whose confidence lies in a bin: how many, how many right, the sum of confidences."""

    images: int
    right: int
    confidence: float


class Reliability(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The reliability diagrams of both models, and what the bounds of the rise need.

    Attributes:
        reference: ``BINS`` bins, by rising confidence.
        candidate: Likewise.
        moments: E[x x^T] of an image's gaps x = (candidate's by bin, reference's by bin), where a
            gap is confidence - right in the bin of its own confidence and 0 in all others;
            shape (2 * BINS, 2 * BINS), symmetric, the upper triangle by rows. Left out of reports.
    """

    reference: tuple[ConfidenceBin, ...]
    candidate: tuple[ConfidenceBin, ...]
    moments: tuple[float, ...] = ()

    @property
    def images(self) -> int:
        """How many were compared."""
        return sum(entry.images for entry in self.reference)

    @property
    def reference_ece(self) -> float:
        """The reference's ECE, 0..1."""
        return float(np.abs(self._gaps(self.reference)).sum())

    @property
    def candidate_ece(self) -> float:
        """The candidate's ECE, 0..1."""
        return float(np.abs(self._gaps(self.candidate)).sum())

    @property
    def rise(self) -> float:
        """By how much the candidate's ECE is above the reference's, -1..1."""
        return self.candidate_ece - self.reference_ece

    def upper_bound(self, alpha: float) -> float:
        """Return the rise below which the true one lies, with confidence 1 - ``alpha`` or more.

        It rests on the normal approximation of means over images; it is cautious, the more so the
        fewer images there are.
        """
        return self._upper(alpha, swap=False)

    def lower_bound(self, alpha: float) -> float:
        """Return the rise above which the true one lies, with confidence 1 - ``alpha`` or more."""
        return -self._upper(alpha, swap=True)

    def _gaps(self, bins: tuple[ConfidenceBin, ...]) -> Reals:
        return np.asarray([entry.confidence - entry.right for entry in bins]) / self.images

    def _upper(self, alpha: float, *, swap: bool) -> float:
        from scipy.special import ndtri

        means = np.concatenate([self._gaps(self.candidate), self._gaps(self.reference)])
        moments = np.zeros((2 * BINS, 2 * BINS))
        moments[np.triu_indices(2 * BINS)] = self.moments
        moments = np.triu(moments) + np.triu(moments, 1).T
        if swap:
            order = np.roll(np.arange(2 * BINS), BINS)
            means, moments = means[order], moments[np.ix_(order, order)]
        errors = np.sqrt(np.maximum(np.diag(moments) - means**2, 0) / self.images)
        sure = float(ndtri(1 - _SIGNS * alpha / (4 * BINS))) * errors
        forms = _forms(means, sure)
        values = forms @ means
        variances = np.maximum(((forms @ moments) * forms).sum(1) - values**2, 0) / self.images
        z = float(ndtri(1 - (1 - _SIGNS) * alpha))
        return float((values + z * np.sqrt(variances)).max())


def _forms(means: Reals, sure: Reals) -> Reals:
    """Return weights of the gaps, one row for each pattern of the signs that are open.

    sum |a_j| - sum |b_j| is max over the signs s of a and min over the signs t of b of
    sum s_j a_j - t_j b_j: open signs of a are all tried, an open t_j takes s_j, as any t may.
    """
    forms = np.zeros((1, 2 * BINS))
    for own, other in zip(range(BINS), range(BINS, 2 * BINS), strict=True):
        signs = [sign for sign in (1, -1) if sign * means[own] >= -sure[own]]
        others = [sign for sign in (1, -1) if sign * means[other] >= -sure[other]]
        if not (sure[own] or sure[other] or means[own] or means[other]):
            continue  # an empty bin
        choices = []
        for sign in signs:
            row = forms.copy()
            row[:, own], row[:, other] = sign, -(others[0] if len(others) == 1 else sign)
            choices.append(row)
        forms = np.concatenate(choices)
    return forms


@dataclass(slots=True)
class ReliabilityCounts:
    """Sums over images, all integers: order and grouping change nothing.

    Attributes:
        bins: Images, right answers and confidences by bin, shape (2, BINS, 3): the candidate, then
            the reference.
        products: Products of the gaps, shape (2 * BINS, 2 * BINS), upper triangle.
    """

    bins: Indices = field(default_factory=lambda: np.zeros((2, BINS, 3), np.int64))
    products: Indices = field(default_factory=lambda: np.zeros((2 * BINS, 2 * BINS), np.int64))

    def add(self, reference: Side, candidate: Side) -> None:
        """Take the same images' confidences of both models."""
        places, gaps = [], []
        for side, (confidence, right) in enumerate((candidate, reference)):
            place = np.minimum(confidence * BINS // CONFIDENCE_ONE, BINS - 1)
            for column, values in enumerate((np.ones_like(confidence), right, confidence)):
                np.add.at(self.bins[side, :, column], place, values.astype(np.int64))
            places.append(place + side * BINS)
            gaps.append(confidence - right.astype(np.int64) * CONFIDENCE_ONE)
        for first, second in ((0, 0), (0, 1), (1, 1)):
            np.add.at(self.products, (places[first], places[second]), gaps[first] * gaps[second])

    def merge(self, other: ReliabilityCounts) -> None:
        """Take all that ``other`` has taken."""
        self.bins += other.bins
        self.products += other.products

    def result(self) -> Reliability:
        """Return fractions instead of units."""
        images = int(self.bins[0, :, 0].sum())
        unit = images * CONFIDENCE_ONE**2
        candidate, reference = (
            tuple(ConfidenceBin(int(n), int(right), int(sum_) / CONFIDENCE_ONE)
                  for n, right, sum_ in side)
            for side in self.bins
        )  # fmt: skip
        triangle = self.products[np.triu_indices(2 * BINS)]
        return Reliability(
            reference=reference,
            candidate=candidate,
            moments=tuple(int(value) / unit for value in triangle),
        )


Side = tuple[Indices, NDArray[np.bool_]]
"""Confidences in units of 1 / ``CONFIDENCE_ONE``, and whether the answers are right; both (N,)."""
