"""Compares two calibrations tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..core.errors import CalibrationError
from ..core.ranges import Range


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How far a tensor's two ranges are apart.

    Attributes:
        tensor: Its name.
        first: Its range in the first table.
        second: Its range in the second.
        relative: The larger of the two ends' distances, divided by the larger width with zero
            included: 0.1 is a tenth of all codes.
    """

    tensor: str
    first: Range
    second: Range
    relative: float


def compare_ranges(
    first: Mapping[str, Range], second: Mapping[str, Range]
) -> tuple[tuple[Difference, ...], tuple[str, ...]]:
    """Return the tensors that both have, the most different first, and the names only one has.

    Raises:
        CalibrationError: They have no tensor in common.
    """
    common = [name for name in first if name in second]
    if not common:
        raise CalibrationError("the tables have no tensor in common: they are of different models")
    differences = sorted(
        (_difference(name, first[name], second[name]) for name in common),
        key=lambda difference: (-difference.relative, difference.tensor),
    )
    return tuple(differences), tuple(sorted(set(first) ^ set(second)))


def _difference(name: str, first: Range, second: Range) -> Difference:
    distance = max(abs(first.lo - second.lo), abs(first.hi - second.hi))
    width = max(max(one.hi, 0.0) - min(one.lo, 0.0) for one in (first, second))
    return Difference(
        tensor=name,
        first=first,
        second=second,
        relative=distance / width if width else 0.0,
    )
