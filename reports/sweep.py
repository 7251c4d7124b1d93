"""A sweep as one page: for each target accuracy against latency, or size, and the table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..core.errors import UsageError
from ..drift.sweep import Point, Sweep
from .html import render
from .write import write_bytes

SUFFIXES: Final = (".json", ".html")

WIDTH: Final = 640
HEIGHT: Final = 320
_LEFT: Final = 56
_BOTTOM: Final = 34
_TOP: Final = 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Where a conversion and its number stand in its target's plot, in units of the view box."""

    number: int
    x: float
    y: float
    label: float
    low: float
    high: float
    front: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A target's plot.

    Attributes:
        target: Its name.
        cost: What the horizontal axis says.
        points: The conversions, numbered from 1.
        marks: One for each.
        across: (place, text) of the horizontal axis.
        up: Likewise of the vertical one.
    """

    target: str
    cost: str
    points: tuple[Point, ...]
    marks: tuple[Mark, ...]
    across: tuple[tuple[float, str], ...]
    up: tuple[tuple[float, str], ...]


def write_sweep(found: Sweep, path: Path) -> None:
    """Write a sweep in the form that the file's ending asks for.

    Raises:
        UsageError: It asks for none.
        OSError: The file cannot be written.
    """
    as_json = check_sweep_path(path) == ".json"
    write_bytes(path, found.to_json() if as_json else sweep_to_html(found))


def check_sweep_path(path: Path) -> str:
    """Return the ending of ``path`` in lower case.

    Raises:
        UsageError: No sweep can be written in the form that it asks for.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(
            f"--report {path}: expected a name that ends in {' or '.join(SUFFIXES)}, found "
            f"{path.suffix or 'no ending'}"
        )
    return suffix


def sweep_to_html(found: Sweep) -> str:
    """Return a sweep as a page."""
    targets = dict.fromkeys(point.target for point in found.points)
    return render(
        "sweep.html",
        title=f"Sweep: {', '.join(model.name for model in found.models)}",
        found=found,
        plots=[
            plot(target, [point for point in found.points if point.target == target])
            for target in targets
        ],
        width=WIDTH,
        height=HEIGHT,
        bottom=HEIGHT - _BOTTOM,
        left=_LEFT,
    )


def plot(target: str, points: Sequence[Point]) -> Plot:
    """Return where a target's conversions stand: over latency where all have one, else size."""
    timed = [point.latency_ms for point in points if point.latency_ms is not None]
    if len(timed) == len(points):
        cost, costs = "latency on this machine, ms", timed
    else:
        cost, costs = "size, MB", [point.size_bytes / 1e6 for point in points]
    high = max(point.upper for point in points)
    low = min(point.lower for point in points)
    most = 1.1 * max(costs)

    def across(value: float) -> float:
        return round(_LEFT + (WIDTH - _LEFT - 16) * value / most, 1)

    def up(value: float) -> float:
        share = (value - low) / max(high - low, 1e-9)
        return round(HEIGHT - _BOTTOM - (HEIGHT - _BOTTOM - _TOP) * share, 1)

    places = [(across(value), up(point.top1)) for point, value in zip(points, costs, strict=True)]
    return Plot(
        target=target,
        cost=cost,
        points=tuple(points),
        marks=tuple(
            Mark(
                number=number, x=x, y=y, label=label, low=up(point.lower), high=up(point.upper),
                front=point.front,
            )
            for number, (point, (x, y), label) in enumerate(
                zip(points, places, labels(places), strict=True), 1
            )
        ),
        across=tuple((across(value), f"{value:g}") for value in ticks(0.0, most)),
        up=tuple((up(value), f"{value:g} %") for value in ticks(low, high)),
    )  # fmt: skip


def ticks(low: float, high: float) -> tuple[float, ...]:
    """Return three to seven round numbers from ``low`` to ``high``, evenly apart."""
    span = max(high - low, 1e-9)
    power = 10.0 ** math.floor(math.log10(span))
    step = next(part * power for part in (0.2, 0.5, 1.0, 2.0, 5.0) if span / (part * power) < 6)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple(round(place * step, 9) for place in range(first, last + 1))


def labels(places: Sequence[tuple[float, float]]) -> list[float]:
    """Return the baseline of each mark's number, moved where another mark or number is in its way.

    A number's middle is 14 units right of its mark's, unless it is moved at the same height.
    """
    found: dict[int, float] = {}
    for place in sorted(range(len(places)), key=lambda place: places[place]):
        x, y = places[place]
        # Middles of what must not be covered, and how near the number's own may come.
        taken = [(mark[0], mark[1], 14.0, 10.0) for mark in places if mark != (x, y)]
        taken += [(places[one][0] + 14, found[one] - 4, 20.0, 11.0) for one in found]
        moves = (sign * 5.5 * step for step in range(60) for sign in (1, -1))
        found[place] = next(
            y + 4 + move for move in moves
            if all(abs(x + 14 - other_x) >= wide or abs(y + move - other_y) >= high
                   for other_x, other_y, wide, high in taken)
        )  # fmt: skip
    return [round(found[place], 1) for place in range(len(places))]
