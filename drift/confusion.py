"""Who answered what to the images of each class: both models' confusion matrices, sparse.

A thousand classes have a million cells, nearly all of them empty; only the others are kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from .answers import Indices


class Cell(msgspec.Struct, frozen=True, array_like=True):
    """One cell of both matrices.

    Attributes:
        truth: The class of the images.
        answer: What was answered to them.
        reference: To how many of them by the reference.
        candidate: By the candidate; one of the two counts at least is not 0.
    """

    truth: int
    answer: int
    reference: int
    candidate: int

    @property
    def change(self) -> int:
        """The candidate's count less the reference's."""
        return self.candidate - self.reference


@dataclass(slots=True)
class ConfusionCounts:
    """Integer counts: order and grouping change nothing; as many as there are cells in use.

    Attributes:
        cells: The reference's and the candidate's count by (truth, answer).
    """

    cells: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)

    def add(self, truth: Indices, reference: Indices, candidate: Indices) -> None:
        """Take the same images' classes and both models' answers, each of shape (N,)."""
        for right, ours, theirs in zip(
            truth.tolist(), reference.tolist(), candidate.tolist(), strict=True
        ):
            self._count((right, ours), 1, 0)
            self._count((right, theirs), 0, 1)

    def merge(self, other: ConfusionCounts) -> None:
        """Take all that ``other`` has taken."""
        for place, counts in other.cells.items():
            self._count(place, *counts)

    def result(self) -> tuple[Cell, ...]:
        """Return the cells by truth and answer."""
        return tuple(Cell(*place, *counts) for place, counts in sorted(self.cells.items()))

    def _count(self, place: tuple[int, int], ours: int, theirs: int) -> None:
        before = self.cells.get(place, (0, 0))
        self.cells[place] = (before[0] + ours, before[1] + theirs)
