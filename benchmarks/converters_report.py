"""The arithmetic and the tables of ``converters.py``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from common import table


@dataclass
class Row:
    """What one converter made of one model.

    Attributes:
        name: The converter, with its variant.
        error: Why there is no file, or why it does not run.
        seconds: Of the conversion by stage; imports and reading the model are not in it.
        process_s: Of the whole process or processes.
        peak_bytes: The largest process's.
        size_bytes: The file's.
        operators: How many of each kind.
        difference: max|a-b| / max|a| from torch's logits.
        latency_ms: Of one image on one thread, median of blocks' fastest calls.
        to_best: The latency's ratio to the best converter's.
        top1: In percent, where there is a truth.
        agreement: With torch's answers, in percent, where the weights are real.
    """

    name: str
    error: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    process_s: float = 0.0
    peak_bytes: int = 0
    size_bytes: int = 0
    operators: dict[str, int] = field(default_factory=dict)
    difference: float = 0.0
    latency_ms: float = 0.0
    to_best: float = 0.0
    top1: float | None = None
    agreement: float | None = None

    @property
    def transposes(self) -> int:
        """How many TRANSPOSE operators the file has."""
        return self.operators.get("TRANSPOSE", 0)


def ratios(blocks: Sequence[Sequence[float]], control: int) -> list[float]:
    """Return each file's latency over the best one's.

    Args:
        blocks: [file][round], in any unit. The first file is what the others are compared with,
            round by round, so that what slows a round down does not count.
        control: The index of the first file's second copy: it is not the best, whatever the noise.
    """
    first = blocks[0]
    found = [median(a / b for a, b in zip(times, first, strict=True)) for times in blocks]
    best = min(ratio for index, ratio in enumerate(found) if index != control)
    return [ratio / best for ratio in found]


def report(title: str, rows: Sequence[Row]) -> str:
    """Return one model's table, the stages behind it, and the failures."""
    made = [row for row in rows if not row.error]
    with_answers = any(row.agreement is not None for row in made)
    header = ["", "conversion", "process", "peak memory", "file", "operators", "TRANSPOSE",
              "difference", "one thread", "/ best"]  # fmt: skip
    if with_answers:
        header += ["top-1", "agrees with torch"]
    cells = [_cells(row, with_answers, len(header)) for row in rows]
    lines = [f"### {title}\n", table(header, cells), ""]
    for row in made:
        if row.seconds:
            stages = ", ".join(f"{name} {value:.2f} s" for name, value in row.seconds.items())
            lines.append(f"- {row.name}: {stages}")
    lines += [f"- {row.name} failed: `{row.error}`" for row in rows if row.error]
    return "\n".join(lines) + "\n"


def _cells(row: Row, with_answers: bool, count: int) -> list[str]:
    if row.error:
        return [row.name, "failed", *[""] * (count - 2)]
    cells = [row.name]
    if row.seconds:
        cells += [f"{sum(row.seconds.values()):.1f} s", f"{row.process_s:.1f} s",
                  f"{row.peak_bytes / 1e6:.0f} MB", f"{row.size_bytes / 1e6:.2f} MB",
                  str(sum(row.operators.values())), str(row.transposes),
                  f"{row.difference:.1e}"]  # fmt: skip
    else:
        cells += [""] * 7
    cells += [f"{row.latency_ms:.2f} ms", f"{row.to_best:.3f}"]
    if with_answers:
        cells += ["" if value is None else f"{value:.2f} %" for value in (row.top1, row.agreement)]
    return cells
