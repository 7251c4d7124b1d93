"""Where the marks of a page's charts stand, in units of each chart's own view box."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ..drift.explanation import Cost
from ..drift.gate import Check
from ..drift.reliability import ConfidenceBin

INTERVAL_WIDTH: Final = 300
DIAGRAM: Final = 300
_MARGIN: Final = 12
_LARGEST_MARK: Final = 8.0
_SMALLEST_MARK: Final = 2.5
# Marks that are closer than this, in points, stand at one place.
_POINT: Final = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """Bounds on a horizontal axis, ``INTERVAL_WIDTH`` wide.

    Attributes:
        lower: Left end of the true value's interval.
        upper: Its right end.
        value: What was measured.
        limit: The budget, or another value of note.
        beyond: (start, width) of the values that break the budget.
        ticks: (place, text) of the axis.
    """

    lower: float
    upper: float
    value: float
    limit: float
    beyond: tuple[float, float]
    ticks: tuple[tuple[float, str], ...]


def check_interval(check: Check) -> Interval | None:
    """Return where a check's marks stand; None where nothing could be measured."""
    if check.value is None or check.lower is None or check.upper is None:
        return None
    marks = (check.lower, check.upper, check.value, check.limit)
    share = check.measure == "agreement"
    low = min(marks) if share else min(0.0, *marks)
    high = 100.0 if share else max(marks)
    axis = _axis(low, high, lowest=0.0 if share else -100.0)
    limit = axis.place(check.limit)
    start, end = (0.0, limit) if share else (limit, float(INTERVAL_WIDTH))
    return Interval(
        lower=axis.place(check.lower),
        upper=axis.place(check.upper),
        value=axis.place(check.value),
        limit=limit,
        beyond=(start, round(end - start, 1)),
        ticks=axis.ticks(),
    )


def cost_intervals(costs: Sequence[Cost]) -> tuple[Interval, ...]:
    """Return where the marks of costs in points stand, all on one axis, with zero as the limit."""
    bounds = [bound for cost in costs for bound in (cost.lower, cost.upper)]
    axis = _axis(min(0.0, *bounds), max(0.0, *bounds), lowest=-100.0)
    zero = axis.place(0.0)
    return tuple(
        Interval(
            lower=axis.place(cost.lower), upper=axis.place(cost.upper),
            value=axis.place(cost.points), limit=zero, beyond=(zero, 0.0), ticks=axis.ticks(),
        )
        for cost in costs
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Axis:
    """From ``low`` to ``high``, with a margin on either side."""

    low: float
    high: float

    def place(self, value: float) -> float:
        inner = INTERVAL_WIDTH - 2 * _MARGIN
        return round(_MARGIN + inner * (value - self.low) / (self.high - self.low), 1)

    def ticks(self) -> tuple[tuple[float, str], ...]:
        """Return round numbers between both ends, about four of them."""
        raw = (self.high - self.low) / 4
        step = 10 ** math.floor(math.log10(raw))
        step *= next(factor for factor in (1, 2, 5, 10) if step * factor >= raw)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        values = [place * step for place in range(first, last + 1)]
        return tuple((self.place(value), f"{value:.6g}") for value in values)


def _axis(low: float, high: float, *, lowest: float) -> _Axis:
    room = 0.08 * (high - low) if high - low > _POINT else 1.0
    return _Axis(max(low - room, lowest), min(high + room, 100.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A bin of a reliability diagram: its place, half its size, and its numbers."""

    x: float
    y: float
    size: float
    images: int
    confidence: float
    accuracy: float


def reliability_marks(bins: Sequence[ConfidenceBin]) -> tuple[Mark, ...]:
    """Return a mark for each bin with images, ``DIAGRAM`` wide and high, the origin below left.

    Its area grows with the bin's images.
    """
    most = max(entry.images for entry in bins)
    marks = []
    for entry in bins:
        if entry.images:
            confidence, accuracy = entry.confidence / entry.images, entry.right / entry.images
            size = max(_SMALLEST_MARK, _LARGEST_MARK * math.sqrt(entry.images / most))
            marks.append(
                Mark(
                    x=round(DIAGRAM * confidence, 1), y=round(DIAGRAM * (1 - accuracy), 1),
                    size=round(size, 1), images=entry.images, confidence=100 * confidence,
                    accuracy=100 * accuracy,
                )
            )  # fmt: skip
    return tuple(marks)
