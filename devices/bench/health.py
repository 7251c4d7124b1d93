"""Whether a measurement can be believed, and what it used, from what the board told meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from .reading import Reading

Readings = Sequence[Reading]
"""Of one process, in order: at least one before the runs and one after them."""

# A clock below this share of its highest has fallen: governors' steps are larger, noise smaller.
_FALLEN: Final = 0.9

# Meters are updated up to ten times a second.
_LEAST_S: Final = 1.0


def reasons_against(processes: Sequence[Readings], *, gpu: bool) -> tuple[str, ...]:
    """Return why the figures are not the board's; empty where nothing that was told says so.

    Args:
        processes: What was read during the measured runs.
        gpu: Whether a GPU runs the model: then its clock counts, else the processor's.
    """
    found = dict.fromkeys(
        f"throttled: {reason}"
        for readings in processes
        for reading in readings
        for reason, active in reading.throttled.items()
        if active
    )
    for readings in processes:
        for name, count in readings[-1].events.items():
            if count > readings[0].events.get(name, count):
                found[f"throttled meanwhile: {name}"] = None
    for unit, (low, high) in ranges(processes, "clocks_mhz").items():
        if (unit == "gpu") == gpu and low < _FALLEN * high:
            found[f"the clock fell: {unit} from {high:.0f} to {low:.0f} MHz"] = None
    return tuple(found)


def ranges(processes: Sequence[Readings], field: str) -> dict[str, tuple[float, float]]:
    """Return the lowest and highest value of each of a field's names."""
    found: dict[str, tuple[float, float]] = {}
    for readings in processes:
        for reading in readings:
            for name, value in getattr(reading, field).items():
                low, high = found.get(name, (value, value))
                found[name] = min(low, value), max(high, value)
    return found


def energy_j(processes: Sequence[Readings]) -> dict[str, float]:
    """Return what was used between the first and last reading of each process, by meter, summed.

    Power is integrated by the trapezoidal rule. Empty where less than a second was measured.
    """
    if sum(readings[-1].at_s - readings[0].at_s for readings in processes) < _LEAST_S:
        return {}
    found: dict[str, float] = {}
    for readings in processes:
        for name, value in _used(readings):
            found[name] = found.get(name, 0.0) + value
    return found


def watched(processes: Sequence[Readings]) -> tuple[str, ...]:
    """Return what the board told: of "clocks", "temperatures", "throttling", "energy"."""
    every = [reading for readings in processes for reading in readings]
    kinds = {
        "clocks": any(reading.clocks_mhz for reading in every),
        "temperatures": any(reading.temperatures_c for reading in every),
        "throttling": any(reading.events or reading.throttled for reading in every),
        "energy": any(reading.energy_j or reading.power_w for reading in every),
    }
    return tuple(kind for kind, told in kinds.items() if told)


def _used(readings: Readings) -> Iterator[tuple[str, float]]:
    first, last = readings[0], readings[-1]
    for name, value in last.energy_j.items():
        if name in first.energy_j:
            yield name, value - first.energy_j[name]
    for name in last.power_w:
        told = [(one.at_s, one.power_w[name]) for one in readings if name in one.power_w]
        yield name, sum((b - a) * (p + q) / 2 for (a, p), (b, q) in pairwise(told))
