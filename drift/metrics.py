"""Counts what changed between two models' answers to the same images, batch by batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..core.errors import CheckFailedError, DataError
from ..core.values import Logits

_TOP: Final = 5


class Flip(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An image that changed its answer: class indices."""

    image: str
    reference: int
    candidate: int
    truth: int | None


class Accuracy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who was right how often; counts of images.

    The first four are the paired table of top-1 answers: they sum to all images.
    """

    both: int
    only_reference: int
    only_candidate: int
    neither: int
    reference_top5: int
    candidate_top5: int


class Metrics(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a comparison found.

    Attributes:
        images: How many were compared.
        classes: The models' outputs.
        agreed: Images with the same top-1 answer.
        mean_logit_difference: Mean of |reference - candidate| over all logits.
        max_logit_difference: Largest of them.
        relative_difference: The largest, divided by the reference's largest magnitude.
        accuracy: None without ground truth.
        flips: Images whose top-1 answer changed, by name.
    """

    images: int
    classes: int
    agreed: int
    mean_logit_difference: float
    max_logit_difference: float
    relative_difference: float
    accuracy: Accuracy | None
    flips: tuple[Flip, ...]

    @property
    def agreement(self) -> float:
        """Images with the same top-1 answer, in percent."""
        return 100 * self.agreed / self.images

    @property
    def reference_top1(self) -> float | None:
        """The reference's top-1 accuracy in percent; None without ground truth."""
        found = self.accuracy
        return None if found is None else 100 * (found.both + found.only_reference) / self.images

    @property
    def candidate_top1(self) -> float | None:
        """The candidate's top-1 accuracy in percent; None without ground truth."""
        found = self.accuracy
        return None if found is None else 100 * (found.both + found.only_candidate) / self.images

    @property
    def reference_top5(self) -> float | None:
        """The reference's top-5 accuracy in percent; None without ground truth."""
        return None if self.accuracy is None else 100 * self.accuracy.reference_top5 / self.images

    @property
    def candidate_top5(self) -> float | None:
        """The candidate's top-5 accuracy in percent; None without ground truth."""
        return None if self.accuracy is None else 100 * self.accuracy.candidate_top5 / self.images

    @property
    def top1_drop(self) -> float | None:
        """Top-1 accuracy lost, in percentage points; negative where the candidate is better."""
        found = self.accuracy
        if found is None:
            return None
        return 100 * (found.only_reference - found.only_candidate) / self.images


@dataclass(slots=True)
class Comparison:
    """Takes batches, keeps counts; the result depends neither on their order nor on their size.

    Of an image that answers alike, only the sum of its differences is kept: 8 bytes.
    """

    _classes: int = 0
    _sums: list[float] = field(default_factory=list)
    _maximum: float = 0.0
    _magnitude: float = 0.0
    _flips: list[Flip] = field(default_factory=list)
    _with_truth: bool | None = None
    _counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(6, np.int64))

    def add(
        self,
        names: Sequence[str],
        reference: Logits,
        candidate: Logits,
        truth: Sequence[int] | NDArray[np.integer] | None = None,
    ) -> None:
        """Take one batch.

        Args:
            names: Of the images, N.
            reference: Shape (N, classes).
            candidate: Shape (N, classes).
            truth: Class indices, N; given for every batch or for none.

        Raises:
            DataError: The two models differ in their number of classes, or a class index has none.
            CheckFailedError: A logit is NaN or infinite; the message names the image.
            ValueError: The arguments do not belong together.
        """
        self._check(names, reference, candidate, truth)
        if not len(names):
            return
        first, second = reference.argmax(1), candidate.argmax(1)
        difference = np.abs(reference.astype(np.float64) - candidate)
        # Summed exactly and rounded once, each image alone: no batch size changes a digit.
        self._sums += [math.fsum(row) for row in difference.tolist()]
        self._maximum = max(self._maximum, float(difference.max()))
        self._magnitude = max(self._magnitude, float(np.abs(reference).max()))
        for index in np.flatnonzero(first != second).tolist():
            self._flips.append(
                Flip(
                    image=names[index],
                    reference=int(first[index]),
                    candidate=int(second[index]),
                    truth=None if truth is None else int(truth[index]),
                )
            )
        if truth is not None:
            right = np.asarray(truth, np.int64)
            ours, theirs = first == right, second == right
            self._counts += [
                int(np.sum(ours & theirs)),
                int(np.sum(ours & ~theirs)),
                int(np.sum(~ours & theirs)),
                int(np.sum(~ours & ~theirs)),
                int(np.sum(_ranks(reference, right) < _TOP)),
                int(np.sum(_ranks(candidate, right) < _TOP)),
            ]

    def merge(self, other: Comparison) -> None:
        """Take all that ``other`` has taken, as if it had been added here.

        Raises:
            DataError: They differ in their number of classes.
            ValueError: One has ground truth, the other has not.
        """
        if not other._classes:
            return
        self._agree(other._classes, bool(other._with_truth))
        self._sums += other._sums
        self._maximum = max(self._maximum, other._maximum)
        self._magnitude = max(self._magnitude, other._magnitude)
        self._flips += other._flips
        self._counts = self._counts + other._counts

    def result(self) -> Metrics:
        """Return the metrics of all that was taken.

        Raises:
            DataError: Nothing was.
        """
        images = len(self._sums)
        if not images:
            raise DataError("no image could be compared")
        relative = self._maximum / self._magnitude if self._magnitude else math.inf
        counts = [int(count) for count in self._counts]
        return Metrics(
            images=images,
            classes=self._classes,
            agreed=images - len(self._flips),
            mean_logit_difference=math.fsum(self._sums) / (images * self._classes),
            max_logit_difference=self._maximum,
            relative_difference=relative if self._maximum else 0.0,
            accuracy=Accuracy(
                both=counts[0],
                only_reference=counts[1],
                only_candidate=counts[2],
                neither=counts[3],
                reference_top5=counts[4],
                candidate_top5=counts[5],
            )
            if self._with_truth
            else None,
            flips=tuple(sorted(self._flips, key=lambda flip: flip.image)),
        )

    def _check(
        self,
        names: Sequence[str],
        reference: Logits,
        candidate: Logits,
        truth: Sequence[int] | NDArray[np.integer] | None,
    ) -> None:
        if reference.ndim != 2 or candidate.ndim != 2 or reference.shape[1] != candidate.shape[1]:
            raise DataError(
                "expected logits (images, classes) of both models with as many classes, found "
                f"{reference.shape} and {candidate.shape}"
            )
        count, classes = reference.shape
        if (
            len(candidate) != count
            or len(names) != count
            or len(names if truth is None else truth) != count
        ):
            raise ValueError(f"expected {count} names, answers and classes")
        for side, logits in (("reference", reference), ("candidate", candidate)):
            bad = np.flatnonzero(~np.isfinite(logits).all(1))
            if len(bad):
                raise CheckFailedError(
                    f"the {side}'s logits of {names[bad[0]]!r} hold NaN or infinity; "
                    "nothing can be compared"
                )
        for name, index in zip(names, () if truth is None else truth, strict=False):
            if not 0 <= index < classes:
                raise DataError(f"{name}: class index {index}, the models have {classes} outputs")
        if count:
            self._agree(classes, truth is not None)

    def _agree(self, classes: int, with_truth: bool) -> None:
        if self._classes not in {0, classes}:
            raise DataError(f"expected {self._classes} classes as before, found {classes}")
        if self._with_truth not in {None, with_truth}:
            raise ValueError("ground truth must be given for every batch or for none")
        self._classes, self._with_truth = classes, with_truth


def compare(
    names: Sequence[str],
    reference: Logits,
    candidate: Logits,
    truth: Sequence[int] | NDArray[np.integer] | None = None,
) -> Metrics:
    """Compare all at once; see ``Comparison.add``."""
    comparison = Comparison()
    comparison.add(names, reference, candidate, truth)
    return comparison.result()


def _ranks(logits: Logits, right: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many classes stand before the right one; of equals the lower index is first."""
    own = np.take_along_axis(logits, right[:, None], 1)
    before = np.arange(logits.shape[1])[None] < right[:, None]
    ranks: NDArray[np.int64] = ((logits > own) | ((logits == own) & before)).sum(1)
    return ranks
