"""How often one model is right, where it is wrong and how sure it is, from its logits.

The counts are those of a comparison of the model with itself, so that top-1, top-5, confusion and
calibration are the drift check's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..core.errors import DataError
from ..core.text import as_utf8
from ..core.values import Logits
from .answers import CONFIDENCE_ONE, answers_of, powers
from .metrics import Comparison
from .mistakes import Mistake, WorstMistakes
from .proportion import wilson
from .reliability import ConfidenceBin
from .report import Provenance, Skipped

SCHEMA_VERSION: Final = 1


class ClassScore(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One class; shares in percent.

    Attributes:
        index: Its output.
        name: None where neither the model nor the data set names it.
        images: That are of it.
        answered: Images to which it was answered.
        right: Images of both kinds.
        precision: Right among the answered; None where it was never answered.
        recall: Right among its images; None where there are none.
        f1: Harmonic mean of both, 2 right / (images + answered).
    """

    index: int
    name: str | None
    images: int
    answered: int
    right: int
    precision: float | None
    recall: float | None
    f1: float


class Count(msgspec.Struct, frozen=True, array_like=True):
    """A cell of the confusion matrix: the images of class ``truth`` that got ``answer``."""

    truth: int
    answer: int
    images: int


class Evaluation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model makes of images whose classes are known; shares in percent.

    Attributes:
        model: As the user named it.
        backend: What ran it.
        truth: Where the classes come from.
        images: How many were answered to.
        classes: The model's outputs.
        top1: Images whose best answer is right.
        top1_interval: Wilson's, 95 %.
        top5: Images whose class is among the five best answers.
        top5_interval: Likewise.
        precision: Mean over the classes that have images; one that was never answered counts 0.
        recall: Likewise.
        f1: Likewise.
        ece: Expected calibration error, 15 bins of equal width.
        per_class: The classes that have images or were answered, by index.
        reliability: The bins of the reliability diagram, by rising confidence.
        confusion: The cells of the matrix that are not 0, by truth and answer.
        wrong: Images whose best answer is wrong.
        mistakes: The wrong answers that the model was surest of, 200 at most.
        skipped: Images that could not be read.
        provenance: What the numbers come from.
    """

    model: str
    backend: str
    truth: str
    images: int
    classes: int
    top1: float
    top1_interval: tuple[float, float]
    top5: float
    top5_interval: tuple[float, float]
    precision: float
    recall: float
    f1: float
    ece: float
    per_class: tuple[ClassScore, ...]
    reliability: tuple[ConfidenceBin, ...]
    confusion: tuple[Count, ...]
    wrong: int
    mistakes: tuple[Mistake, ...]
    skipped: tuple[Skipped, ...] = ()
    provenance: Provenance | None = None
    schema_version: int = SCHEMA_VERSION

    def name_of(self, index: int) -> str:
        """Return a class's name, or its index."""
        found = next((score.name for score in self.per_class if score.index == index), None)
        return str(index) if found is None else found

    def to_json(self) -> bytes:
        """Return it as JSON, indented, ending with a newline; the same every time."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


@dataclass(slots=True)
class EvaluationCounts:
    """Takes batches, keeps counts; the result does not depend on their order or size."""

    _comparison: Comparison = field(default_factory=Comparison)
    _mistakes: WorstMistakes = field(default_factory=WorstMistakes)

    def add(
        self, names: Sequence[str], logits: Logits, truth: Sequence[int] | NDArray[np.integer]
    ) -> None:
        """Take one batch.

        Args:
            names: Of the images, N.
            logits: Shape (N, classes).
            truth: Class indices, N.

        Raises:
            CheckFailedError: A logit is NaN or infinite.
            DataError: A class index has no output, or the outputs are not as many as before.
        """
        right = np.asarray(truth, np.int64)
        answers = answers_of(logits, right, names=names)
        # Without the logits nothing is spent on their differences, which are 0.
        alone = replace(answers, logits=None)
        self._comparison.add(names, alone, alone, right, classes=logits.shape[1])
        self._mistakes.add(
            Mistake(
                image=as_utf8(names[row]),
                truth=int(right[row]),
                answer=int(answers.top1[row]),
                confidence=int(answers.confidence[row]) / CONFIDENCE_ONE,
                truth_confidence=_share(logits[row], int(right[row])),
            )
            for row in np.flatnonzero(answers.top1 != right).tolist()
        )

    def result(
        self, *, model: str, backend: str, truth: str, names: Mapping[int, str] | None = None,
        skipped: tuple[Skipped, ...] = (), provenance: Provenance | None = None,
    ) -> Evaluation:  # fmt: skip
        """Return what was found.

        Args:
            model: What was evaluated.
            backend: What ran it.
            truth: Where the classes come from.
            names: Class names by index, of those that have one.
            skipped: What could not be read.
            provenance: What the numbers come from.

        Raises:
            DataError: Nothing was taken.
        """
        metrics = self._comparison.result()
        graded = metrics.graded
        if graded is None:
            raise DataError("no image whose class is known")
        confusion = tuple(Count(c.truth, c.answer, c.reference) for c in graded.confusion)
        scores = _scores(confusion, names or {})
        present = [score for score in scores if score.images]
        images = metrics.images
        return Evaluation(
            model=as_utf8(model),
            backend=backend,
            truth=truth,
            images=images,
            classes=metrics.classes,
            top1=graded.top1.reference,
            top1_interval=_interval(graded.top1.both, images),
            top5=graded.top5.reference,
            top5_interval=_interval(graded.top5.both, images),
            precision=float(np.mean([score.precision or 0.0 for score in present])),
            recall=float(np.mean([score.recall or 0.0 for score in present])),
            f1=float(np.mean([score.f1 for score in present])),
            ece=100 * graded.reliability.reference_ece,
            per_class=scores,
            reliability=graded.reliability.reference,
            confusion=confusion,
            wrong=self._mistakes.count,
            mistakes=self._mistakes.result(),
            skipped=skipped,
            provenance=provenance,
        )


def _scores(
    confusion: Sequence[Count], names: Mapping[int, str]
) -> tuple[ClassScore, ...]:  # fmt: skip
    images: dict[int, int] = {}
    answered: dict[int, int] = {}
    right: dict[int, int] = {}
    for cell in confusion:
        images[cell.truth] = images.get(cell.truth, 0) + cell.images
        answered[cell.answer] = answered.get(cell.answer, 0) + cell.images
        if cell.truth == cell.answer:
            right[cell.truth] = cell.images
    scores = []
    for index in sorted({*images, *answered}):
        own, given, both = images.get(index, 0), answered.get(index, 0), right.get(index, 0)
        scores.append(
            ClassScore(
                index=index,
                name=names.get(index),
                images=own,
                answered=given,
                right=both,
                precision=100 * both / given if given else None,
                recall=100 * both / own if own else None,
                f1=200 * both / (own + given),
            )
        )
    return tuple(scores)


def _interval(count: int, images: int) -> tuple[float, float]:
    low, high = wilson(count, images)
    return 100 * low, 100 * high


def _share(row: Logits, index: int) -> float:
    weights = powers(row)
    return float(weights[index] / weights.sum())
