"""The images that changed their answer, the worst first, in bounded memory."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import msgspec

KEPT: Final = 1000


class Flip(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An image that changed its answer: class indices, and the probabilities of the answers."""

    image: str
    reference: int
    candidate: int
    truth: int | None
    reference_confidence: float
    candidate_confidence: float

    @property
    def severity(self) -> tuple[object, ...]:
        """Sorts the worst first: lost right answers before others, gained ones last.

        Among alike the one that the reference was surest of; then by name, so that the order is
        the same however the images came.
        """
        kind = 1
        if self.truth is not None:
            kind = 0 if self.reference == self.truth else 2 if self.candidate == self.truth else 1
        return (
            kind, -self.reference_confidence, -self.candidate_confidence, self.image,
            self.reference, self.candidate, -1 if self.truth is None else self.truth,
        )  # fmt: skip


@dataclass(slots=True)
class WorstFlips:
    """Keeps the ``KEPT`` worst of all that it takes."""

    _flips: list[Flip] = field(default_factory=list)

    def add(self, flips: Iterable[Flip]) -> None:
        """Take more."""
        self._flips += flips
        if len(self._flips) > 2 * KEPT:
            self._flips = self._worst()

    def merge(self, other: WorstFlips) -> None:
        """Take all that ``other`` keeps."""
        self.add(other._flips)

    def result(self) -> tuple[Flip, ...]:
        """Return them, the worst first."""
        return tuple(self._worst())

    def _worst(self) -> list[Flip]:
        return heapq.nsmallest(KEPT, self._flips, key=lambda flip: flip.severity)
