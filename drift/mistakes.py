"""The wrong answers that a model was surest of, in bounded memory."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import msgspec

KEPT: Final = 200


class Mistake(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A wrong answer: class indices, and the probabilities that the model gave to both."""

    image: str
    truth: int
    answer: int
    confidence: float
    truth_confidence: float

    @property
    def severity(self) -> tuple[float, float, str, int, int]:
        """Sorts the surest first; then by name, so that the order of the images changes nothing."""
        return (
            -self.confidence, self.truth_confidence, self.image, self.truth, self.answer
        )  # fmt: skip


@dataclass(slots=True)
class WorstMistakes:
    """Keeps the ``KEPT`` worst of all that it takes, and counts all."""

    count: int = 0
    _kept: list[Mistake] = field(default_factory=list)

    def add(self, mistakes: Iterable[Mistake]) -> None:
        """Take more."""
        before = len(self._kept)
        self._kept += mistakes
        self.count += len(self._kept) - before
        if len(self._kept) > 2 * KEPT:
            self._kept = self._worst()

    def result(self) -> tuple[Mistake, ...]:
        """Return them, the worst first."""
        return tuple(self._worst())

    def _worst(self) -> list[Mistake]:
        return heapq.nsmallest(KEPT, self._kept, key=lambda mistake: mistake.severity)
