"""Chains of reshapes and transposes as one.

What a chain does to a tensor's bytes is one permutation of axes: those into which the shapes of
the chain cut it. Two chains in a row are one over the axes that both cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .layout import Shape

LARGEST_RANK = 6
"""Of a TRANSPOSE that runtimes take."""


@dataclass(frozen=True, slots=True)
class Move:
    """``array.reshape(dims).transpose(order)``, whatever its shape is then called."""

    dims: Shape
    order: tuple[int, ...]

    @property
    def result(self) -> Shape:
        """Return the axes as they are ordered afterwards."""
        return tuple(self.dims[axis] for axis in self.order)

    def then(self, other: Move) -> Move | None:
        """Return both in a row as one; None where their axes do not cut each other whole."""
        cuts = _common(self.result, other.dims)
        if cuts is None:
            return None
        first, second = cuts
        # Axes of the input in pieces, numbered in the order that the first move gives them.
        starts = [sum(len(piece) for piece in first[:place]) for place in range(len(first))]
        pieces = [
            starts[place] + index
            for axis in range(len(self.dims))
            for place in [self.order.index(axis)]
            for index in range(len(first[place]))
        ]
        sizes = [size for piece in first for size in piece]
        bounds = [sum(len(piece) for piece in second[:axis]) for axis in range(len(second))]
        wanted = [
            bounds[axis] + index for axis in other.order for index in range(len(second[axis]))
        ]
        dims = tuple(sizes[piece] for piece in pieces)
        return Move(dims, tuple(pieces.index(piece) for piece in wanted)).simplified()

    def simplified(self) -> Move:
        """Return the same move over as few axes as it takes; over none where it moves nothing."""
        runs: list[list[int]] = []
        for axis in self.order:
            if self.dims[axis] == 1:
                continue
            before = [a for a in range(axis) if self.dims[a] != 1]
            if runs and before and runs[-1][-1] == before[-1]:
                runs[-1].append(axis)
            else:
                runs.append([axis])
        if len(runs) < 2:
            return Move((), ())
        kept = sorted(runs)
        dims = []
        for run in kept:
            size = 1
            for axis in run:
                size *= self.dims[axis]
            dims.append(size)
        return Move(tuple(dims), tuple(kept.index(run) for run in runs))


def _common(a: Sequence[int], b: Sequence[int]) -> tuple[list[list[int]], list[list[int]]] | None:
    """Return the pieces into which each axis of both shapes is cut by those of the other."""
    first: list[list[int]] = [[] for _ in a]
    second: list[list[int]] = [[] for _ in b]
    i = j = 0
    left, right = 1, 1
    while True:
        while left == 1 and i < len(a):
            left, i = a[i], i + 1
        while right == 1 and j < len(b):
            right, j = b[j], j + 1
        if left == right == 1:
            return first, second
        size = min(left, right)
        if left % size or right % size:
            return None
        first[i - 1].append(size)
        second[j - 1].append(size)
        left, right = left // size, right // size
