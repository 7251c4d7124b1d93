"""Confusion matrices for a page: whole where they can be read, else the pairs that changed most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ..drift.confusion import Cell

# So many columns of numbers fit on a page.
MOST_CLASSES: Final = 16
_SHADES: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A cell as it is shown.

    Attributes:
        text: A count, or a change with its sign; "" for 0.
        shade: 0 for none, up to 5 for the row's share; of a change, of the largest.
        kind: "count", "better" or "worse": more right answers are better, more wrong ones worse.
    """

    text: str
    shade: int
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A matrix with its title; rows by true class, columns by answer."""

    title: str
    rows: tuple[tuple[Field, ...], ...]


def grids(cells: Sequence[Cell], classes: int) -> tuple[Grid, ...]:
    """Return the reference's matrix, the candidate's, and what the conversion changed in it."""
    known = {(cell.truth, cell.answer): cell for cell in cells}
    images = dict.fromkeys(range(classes), 0)
    for cell in cells:
        images[cell.truth] += cell.reference
    most = max(abs(cell.change) for cell in cells)

    def count(place: tuple[int, int], side: str) -> Field:
        value = getattr(known[place], side) if place in known else 0
        return Field(text=str(value or ""), shade=_shade(value, images[place[0]]), kind="count")

    def change(place: tuple[int, int]) -> Field:
        value = known[place].change if place in known else 0
        better = (value > 0) == (place[0] == place[1])
        return Field(
            text=f"{value:+d}".replace("-", "\N{MINUS SIGN}") if value else "",
            shade=_shade(abs(value), most),
            kind="better" if better else "worse",
        )

    places = [[(row, column) for column in range(classes)] for row in range(classes)]
    return (
        Grid(title="Reference", rows=_rows([[count(p, "reference") for p in r] for r in places])),
        Grid(title="Candidate", rows=_rows([[count(p, "candidate") for p in r] for r in places])),
        Grid(title="Change", rows=_rows([[change(p) for p in r] for r in places])),
    )


def count_grid(cells: Sequence[tuple[int, int, int]], classes: int) -> Grid:
    """Return one model's matrix.

    Args:
        cells: Row, column and images of those that are not 0.
        classes: Rows and columns.
    """
    known = {(row, column): images for row, column, images in cells}
    totals = _row_totals(cells)
    rows = [[(row, column) for column in range(classes)] for row in range(classes)]
    return Grid(
        title="Confusion",
        rows=_rows(
            [
                [
                    Field(
                        text=str(known.get(place, "")),
                        shade=_shade(known.get(place, 0), totals.get(place[0], 0)),
                        kind="count",
                    )
                    for place in row
                ]
                for row in rows
            ]
        ),
    )


def heat_cells(
    cells: Sequence[tuple[int, int, int]],
) -> tuple[tuple[int, int, float], ...]:
    """Return row, column and share of its row of each cell that is not 0."""
    totals = _row_totals(cells)
    return tuple((row, column, images / totals[row]) for row, column, images in sorted(cells))


def _row_totals(cells: Sequence[tuple[int, int, int]]) -> dict[int, int]:
    totals: dict[int, int] = {}
    for row, _, images in cells:
        totals[row] = totals.get(row, 0) + images
    return totals


def most_confused(cells: Sequence[Cell], limit: int) -> tuple[Cell, ...]:
    """Return the wrong answers whose number changed most, then the most frequent."""
    wrong = [cell for cell in cells if cell.truth != cell.answer]
    ranked = sorted(
        wrong, key=lambda c: (-abs(c.change), -c.reference - c.candidate, c.truth, c.answer)
    )
    return tuple(ranked[:limit])


def _rows(fields: list[list[Field]]) -> tuple[tuple[Field, ...], ...]:
    return tuple(map(tuple, fields))


def _shade(value: int, whole: int) -> int:
    return math.ceil(_SHADES * value / whole) if whole else 0
