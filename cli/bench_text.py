"""How a measurement is told in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from .show import human_bytes

if TYPE_CHECKING:
    from ..devices.bench.result import BenchResult

_KINDS: Final = ("clocks", "temperatures", "throttling", "energy")


def title(found: BenchResult) -> list[str]:
    """Return what ran on what, and how often."""
    runs_on = ", ".join(f"{key} {value}" for key, value in found.description.items())
    images = f"{found.images} image(s)" + (f" in batches of {found.batch}" * (found.batch > 1))
    return [
        f"{found.artefact} ({found.precision}) on {found.backend}: {runs_on}",
        f"{len(found.processes)} process(es) of {found.runs} runs after {found.warmup}, {images}",
    ]


def stage_rows(found: BenchResult) -> Iterator[list[str]]:
    """Yield the cells of each stage."""
    for stage, times in found.stages.items():
        values = (times.p50, times.p90, times.p99)
        yield [stage, *("-" if value is None else f"{value:.2f} ms" for value in values)]


def rows(found: BenchResult) -> Iterator[tuple[str, str]]:
    """Yield the other figures, each with its name."""
    cold, memory = found.cold_start, found.memory
    how = "predict_stream" if found.batch == 1 else "batches one after the other"
    yield "throughput", f"{found.per_s:.1f} images/s ({how})"
    yield (
        "cold start",
        (
            f"{cold.total:.0f} ms: Python {cold.python:.0f}, import {cold.imports:.0f}, "
            f"load {cold.load:.0f}, first answer {cold.first:.0f}"
        ),
    )
    over = human_bytes(memory.peak - memory.python)
    yield "memory", f"{human_bytes(memory.peak)} at most, {over} over the bare interpreter"
    parts = (
        ("import", memory.imports - memory.python),
        ("load", memory.load - memory.imports),
        ("predictions", memory.peak - memory.load),
    )
    yield "", ", ".join(f"{name} {human_bytes(size)}" for name, size in parts)
    for name, values, unit in (
        ("clocks", found.clocks_mhz, "MHz"), ("temperatures", found.temperatures_c, "°C"),
    ):  # fmt: skip
        if values:
            told = (f"{key} {low:.0f} .. {high:.0f} {unit}" for key, (low, high) in values.items())
            yield name, ", ".join(told)
    if found.energy_j:
        told = (f"{key} {value:.3g} J" for key, value in found.energy_j.items())
        yield "energy per image", ", ".join(told)
    untold = [kind for kind in _KINDS if kind not in found.watched]
    if untold and not found.emulated:
        yield "not told", ", ".join(untold)


def notes(found: BenchResult) -> Iterator[str]:
    """Yield what a reader should know before believing it."""
    if found.fell_back is not None:
        yield f"simulated with {found.backend}: {found.fell_back}"
    if found.problem is not None:
        yield found.problem
    if found.busy:
        yield (
            f"the machine was busy: {found.waiting:.0%} of the time it had no core for the "
            "measured process; stop other programs, and measure again"
        )


def verdict(found: BenchResult) -> tuple[str, str]:
    """Return a colour, and whether the figures can be used."""
    from ..devices.bench.result import EMULATED

    if found.emulated:
        return "yellow", EMULATED
    if found.invalid:
        return "red", "invalid: the board slowed down meanwhile"
    if found.busy:
        return "yellow", "doubtful: the machine was busy"
    if "throttling" in found.watched or "clocks" in found.watched:
        return "green", "valid: the board tells of no slowing down"
    return "yellow", "unwatched: the board does not tell whether it slowed down"
