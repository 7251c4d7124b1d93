"""Counts what changed between two models' answers to the same images, batch by batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..core.errors import DataError
from ..core.values import Logits
from .answers import CONFIDENCE_ONE, Answers, Indices, answers_of, powers
from .confusion import Cell, ConfusionCounts
from .flips import Flip, WorstFlips
from .histogram import Distribution, Histogram
from .paired import Paired
from .reliability import Reliability, ReliabilityCounts

# Every float64 is a whole number of these: their sum is exact.
_SMALLEST: Final = 2**1074


class Accuracy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who was right how often; counts of images that sum to all images."""

    both: int
    only_reference: int
    only_candidate: int
    neither: int

    @property
    def images(self) -> int:
        """How many there are."""
        return self.both + self.only_reference + self.only_candidate + self.neither

    @property
    def reference(self) -> float:
        """The reference's accuracy in percent."""
        return 100 * (self.both + self.only_reference) / self.images

    @property
    def candidate(self) -> float:
        """The candidate's accuracy in percent."""
        return 100 * (self.both + self.only_candidate) / self.images

    @property
    def drop(self) -> float:
        """Accuracy lost, in percentage points; negative where the candidate is better."""
        return 100 * (self.only_reference - self.only_candidate) / self.images

    @property
    def paired(self) -> Paired:
        """The counts that the paired test takes."""
        return Paired(self.only_reference, self.only_candidate, self.images)


class ClassAccuracy(Accuracy, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Top-1 of the images of one class."""

    index: int


class Graded(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the ground truth adds.

    Attributes:
        top1: The best answer is right.
        top5: The right class is among the five best.
        classes: Top-1 of each class that has images, by index.
        reliability: How far confidence and accuracy are apart.
        confusion: What was answered to the images of each class, by class and answer.
    """

    top1: Accuracy
    top5: Accuracy
    classes: tuple[ClassAccuracy, ...]
    reliability: Reliability
    confusion: tuple[Cell, ...]


class Differences(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far the outputs are apart.

    Attributes:
        mean: Of |reference - candidate| over all logits.
        largest: Of them.
        relative: The largest, divided by the reference's largest magnitude; None where that is 0
            and the largest is not.
        logits: |reference - candidate| of every logit.
        probabilities: Of every image, half the sum of |p - q| over the classes: the probability
            that moved to another class, 0..1.
    """

    mean: float
    largest: float
    relative: float | None
    logits: Distribution
    probabilities: Distribution


class Metrics(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a comparison found.

    Attributes:
        images: How many were compared.
        classes: The models' outputs.
        agreed: Images with the same top-1 answer.
        differences: None where the logits of a side were not kept, as in a baseline.
        graded: None without ground truth.
        flips: Images whose top-1 answer changed, the worst first, a thousand at most.
    """

    images: int
    classes: int
    agreed: int
    differences: Differences | None
    graded: Graded | None
    flips: tuple[Flip, ...]

    @property
    def agreement(self) -> float:
        """Images with the same top-1 answer, in percent."""
        return 100 * self.agreed / self.images


@dataclass(slots=True)
class Comparison:
    """Takes batches, keeps counts; the result depends neither on their order nor on their size.

    Memory is bounded by the number of classes, not of images.
    """

    _images: int = 0
    _agreed: int = 0
    _classes: int = 0
    _with_truth: bool | None = None
    _with_logits: bool | None = None
    _sum: int = 0
    _maximum: float = 0.0
    _magnitude: float = 0.0
    _logits: Histogram = field(default_factory=Histogram)
    _probabilities: Histogram = field(default_factory=Histogram)
    _top1: Indices = field(default_factory=lambda: np.zeros((0, 4), np.int64))
    _top5: Indices = field(default_factory=lambda: np.zeros(4, np.int64))
    _reliability: ReliabilityCounts = field(default_factory=ReliabilityCounts)
    _confusion: ConfusionCounts = field(default_factory=ConfusionCounts)
    _flips: WorstFlips = field(default_factory=WorstFlips)

    def add(
        self,
        names: Sequence[str],
        reference: Answers,
        candidate: Answers,
        truth: Sequence[int] | NDArray[np.integer] | None = None,
        *,
        classes: int,
    ) -> None:
        """Take one batch.

        Args:
            names: Of the images, N.
            reference: To these images.
            candidate: To these images.
            truth: Class indices, N; given for every batch or for none.
            classes: The models' outputs.

        Raises:
            DataError: The models have another number of classes than before.
            ValueError: The arguments do not belong together.
        """
        counts = {len(names), len(reference.top1), len(candidate.top1)}
        if len(counts | ({len(truth)} if truth is not None else set())) > 1:
            raise ValueError(f"expected as many names, answers and classes, found {counts}")
        if not len(names):
            return
        both = reference.logits is not None and candidate.logits is not None
        self._agree(classes, truth is not None, both)
        self._images += len(names)
        self._agreed += int(np.sum(reference.top1 == candidate.top1))
        if reference.logits is not None and candidate.logits is not None:
            self._differ(reference.logits, candidate.logits)
        right = None if truth is None else np.asarray(truth, np.int64)
        self._flips.add(_flips(names, reference, candidate, right))
        if right is not None:
            self._grade(reference, candidate, right)

    def merge(self, other: Comparison) -> None:
        """Take all that ``other`` has taken, as if it had been added here.

        Raises:
            DataError: They differ in their number of classes.
            ValueError: One has ground truth or logits, the other has not.
        """
        if not other._images:
            return
        self._agree(other._classes, bool(other._with_truth), bool(other._with_logits))
        self._images += other._images
        self._agreed += other._agreed
        self._sum += other._sum
        self._maximum = max(self._maximum, other._maximum)
        self._magnitude = max(self._magnitude, other._magnitude)
        self._logits.merge(other._logits)
        self._probabilities.merge(other._probabilities)
        self._top1 = self._top1 + other._top1
        self._top5 = self._top5 + other._top5
        self._reliability.merge(other._reliability)
        self._confusion.merge(other._confusion)
        self._flips.merge(other._flips)

    def result(self) -> Metrics:
        """Return the metrics of all that was taken.

        Raises:
            DataError: Nothing was.
        """
        if not self._images:
            raise DataError("no image could be compared")
        return Metrics(
            images=self._images,
            classes=self._classes,
            agreed=self._agreed,
            differences=self._differences() if self._with_logits else None,
            graded=self._graded() if self._with_truth else None,
            flips=self._flips.result(),
        )

    def _agree(self, classes: int, with_truth: bool, with_logits: bool) -> None:
        if self._classes not in {0, classes}:
            raise DataError(f"expected {self._classes} classes as before, found {classes}")
        if self._with_truth not in {None, with_truth}:
            raise ValueError("ground truth must be given for every batch or for none")
        if self._with_logits not in {None, with_logits}:
            raise ValueError("logits must be given for every batch or for none")
        if not self._classes and with_truth:
            self._top1 = np.zeros((classes, 4), np.int64)
        self._classes, self._with_truth, self._with_logits = classes, with_truth, with_logits

    def _differ(self, reference: Logits, candidate: Logits) -> None:
        difference = np.abs(reference.astype(np.float64) - candidate)
        self._logits.add(difference)
        for row, first, second in zip(difference, reference, candidate, strict=True):
            numerator, denominator = math.fsum(row.tolist()).as_integer_ratio()
            self._sum += numerator * (_SMALLEST // denominator)
            before, after = powers(first), powers(second)
            moved = np.abs(before / before.sum() - after / after.sum()).sum() / 2
            self._probabilities.add(np.asarray(moved))
        self._maximum = max(self._maximum, float(difference.max()))
        self._magnitude = max(self._magnitude, float(np.abs(reference).max()))

    def _grade(self, reference: Answers, candidate: Answers, right: Indices) -> None:
        if reference.in_top5 is None or candidate.in_top5 is None:
            raise ValueError("answers to images with ground truth must say what it makes of them")
        ours, theirs = reference.top1 == right, candidate.top1 == right
        np.add.at(self._top1, (right, _cell(ours, theirs)), 1)
        self._top5 = self._top5 + np.bincount(
            _cell(reference.in_top5, candidate.in_top5), minlength=4
        )
        self._reliability.add((reference.confidence, ours), (candidate.confidence, theirs))
        self._confusion.add(right, reference.top1, candidate.top1)

    def _differences(self) -> Differences:
        relative = self._maximum / self._magnitude if self._magnitude else None
        return Differences(
            mean=self._sum / (_SMALLEST * self._images * self._classes),
            largest=self._maximum,
            relative=relative if self._maximum else 0.0,
            logits=self._logits.result(),
            probabilities=self._probabilities.result(),
        )

    def _graded(self) -> Graded:
        return Graded(
            top1=Accuracy(**_named(self._top1.sum(0))),
            top5=Accuracy(**_named(self._top5)),
            classes=tuple(
                ClassAccuracy(index=index, **_named(self._top1[index]))
                for index in np.flatnonzero(self._top1.sum(1)).tolist()
            ),
            reliability=self._reliability.result(),
            confusion=self._confusion.result(),
        )


def compare(
    names: Sequence[str],
    reference: Logits,
    candidate: Logits,
    truth: Sequence[int] | NDArray[np.integer] | None = None,
) -> Metrics:
    """Compare all at once; see ``Comparison.add`` and ``answers_of``.

    Raises:
        DataError: The models differ in their number of classes.
    """
    comparison = Comparison()
    add_logits(comparison, names, reference, candidate, truth)
    return comparison.result()


def add_logits(
    comparison: Comparison,
    names: Sequence[str],
    reference: Logits,
    candidate: Logits,
    truth: Sequence[int] | NDArray[np.integer] | None = None,
) -> None:
    """Give a batch's logits to a comparison.

    Raises:
        DataError: The models differ in their number of classes.
        CheckFailedError: A logit is NaN or infinite.
    """
    if reference.ndim != 2 or candidate.ndim != 2 or reference.shape[1] != candidate.shape[1]:
        raise DataError(
            "expected logits (images, classes) of both models with as many classes, found "
            f"{reference.shape} and {candidate.shape}"
        )
    comparison.add(
        names,
        answers_of(reference, truth, names=names, side="reference"),
        answers_of(candidate, truth, names=names, side="candidate"),
        truth,
        classes=reference.shape[1],
    )


def _cell(reference: NDArray[np.bool_], candidate: NDArray[np.bool_]) -> Indices:
    """Return the place in a paired table: both, only reference, only candidate, neither."""
    return 2 * (~reference).astype(np.int64) + (~candidate).astype(np.int64)


def _named(cells: Indices) -> dict[str, int]:
    names = ("both", "only_reference", "only_candidate", "neither")
    return dict(zip(names, cells.tolist(), strict=True))


def _flips(
    names: Sequence[str], reference: Answers, candidate: Answers, right: Indices | None
) -> list[Flip]:
    return [
        Flip(
            image=names[index],
            reference=int(reference.top1[index]),
            candidate=int(candidate.top1[index]),
            truth=None if right is None else int(right[index]),
            reference_confidence=int(reference.confidence[index]) / CONFIDENCE_ONE,
            candidate_confidence=int(candidate.confidence[index]) / CONFIDENCE_ONE,
        )
        for index in np.flatnonzero(reference.top1 != candidate.top1).tolist()
    ]
