"""What a pruning keeps while it runs and leaves in the end: its state, the table, the plot."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from ..core.errors import CheckpointError, MissingPackageError
from ..core.files import atomic_file, write_atomic
from .prune_plan import Decided

STATE: Final = "state.json"
STEPS: Final = "steps.csv"
METRICS: Final = "metrics.csv"
PLOT: Final = "pruning.png"


class StepRow(msgspec.Struct, frozen=True, kw_only=True):
    """What the model is after a step; the first row, step 0, is the model before.

    Attributes:
        step: From 0.
        parameters: Numbers that the weights file holds.
        nonzero: Those that are not zero.
        macs: Multiply-accumulates of one image; zeros count.
        size_bytes: Of the file that ships to the target.
        top1: Percent of the images that judge; None without any.
        top1_low: Of Wilson's 95 % interval.
        top1_high: Likewise.
        images: How many judged.
        predicted_speedup: By multiply-accumulates.
        speedup: Measured: the file's time against the unpruned one's, in turn on this machine; None
            where the target's file cannot run here.
        speedup_low: Of a 95 % interval.
        speedup_high: Likewise.
        latency_ms: One image, one thread.
        original_ms: The unpruned file's, beside it.
    """

    step: int
    parameters: int
    nonzero: int
    macs: int
    size_bytes: int
    top1: float | None = None
    top1_low: float | None = None
    top1_high: float | None = None
    images: int = 0
    predicted_speedup: float = 1.0
    speedup: float | None = None
    speedup_low: float | None = None
    speedup_high: float | None = None
    latency_ms: float | None = None
    original_ms: float | None = None


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Where a pruning stands.

    Attributes:
        identity: What must be the same to go on.
        decided: How much goes; None before it is known.
        rows: The steps that are done.
    """

    identity: dict[str, Any]
    decided: Decided | None = None
    rows: tuple[StepRow, ...] = ()


def read_state(file: Path) -> State:
    """Return what was kept.

    Raises:
        CheckpointError: It is damaged.
    """
    try:
        return msgspec.json.decode(file.read_bytes(), type=State)
    except (OSError, msgspec.DecodeError, ValueError) as error:
        raise CheckpointError(
            f"{file}: not a readable state of a pruning ({error}); remove {file.parent} to begin "
            "again"
        ) from error


def write_state(state: State, file: Path) -> None:
    """Keep it, whole or not at all."""
    write_atomic(file, msgspec.json.format(msgspec.json.encode(state), indent=1))


def steps_csv(rows: Sequence[StepRow]) -> bytes:
    """Return the table of the steps."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = StepRow.__struct_fields__
    writer.writerow(names)
    writer.writerows([getattr(row, name) for name in names] for row in rows)
    return text.getvalue().encode()


def joined_metrics(folders: Sequence[Path]) -> bytes:
    """Return every step's table of epochs as one, the step in front."""
    lines: list[str] = []
    for step, folder in enumerate(folders, start=1):
        file = folder / METRICS
        if file.exists():
            head, *rows = file.read_text(encoding="utf-8").splitlines()
            lines += [f"step,{head}"] * (not lines) + [f"{step},{row}" for row in rows]
    return "".join(f"{line}\n" for line in lines).encode()


def check_plot() -> None:
    """Raise MissingPackageError where matplotlib is missing, before hours are spent."""
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingPackageError("matplotlib", "plots") from error


def plot(rows: Sequence[StepRow], file: Path) -> None:
    """Draw top-1 against what is left, and the predicted against the measured speed-up (PNG)."""
    from matplotlib.figure import Figure

    first = rows[0]
    figure = Figure(figsize=(8.4, 3.4), layout="constrained")
    accuracy, speed = figure.subplots(1, 2)
    judged = [row for row in rows if row.top1 is not None]
    for name, values in (
        ("parameters that are not zero", [row.nonzero / first.nonzero for row in judged]),
        ("MACs", [row.macs / first.macs for row in judged]),
        ("file", [row.size_bytes / first.size_bytes for row in judged]),
    ):
        top1 = [row.top1 or 0.0 for row in judged]
        low = [value - (row.top1_low or 0.0) for value, row in zip(top1, judged, strict=True)]
        high = [(row.top1_high or 0.0) - value for value, row in zip(top1, judged, strict=True)]
        shares = [100 * value for value in values]
        accuracy.errorbar(shares, top1, yerr=[low, high], marker="o", capsize=3, label=name)
    accuracy.set_xlabel("left of the original, %")
    accuracy.set_ylabel("top-1, % (95 %)")
    if judged:
        accuracy.legend(fontsize="small")
    steps = [row.step for row in rows]
    speed.plot(steps, [row.predicted_speedup for row in rows], "o--", label="predicted by MACs")
    timed = [row for row in rows if row.speedup is not None]
    if timed:
        values = [row.speedup or 0.0 for row in timed]
        low = [value - (row.speedup_low or 0.0) for value, row in zip(values, timed, strict=True)]
        high = [(row.speedup_high or 0.0) - value for value, row in zip(values, timed, strict=True)]
        speed.errorbar(
            [row.step for row in timed], values, yerr=[low, high], marker="s", capsize=3,
            label="measured (95 %)",
        )  # fmt: skip
    speed.set_xticks(steps)
    speed.set_xlabel("step")
    speed.set_ylabel("speed-up")
    speed.legend(fontsize="small")
    with atomic_file(file) as stream:
        figure.savefig(stream, format="png", dpi=120)
