"""Plots of a calibration table: one PNG per tensor and an overview."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ..core.errors import MissingPackageError
from .table import CalibrationTable, TensorRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OVERVIEW: Final = "overview.png"
_BARS: Final = 256


def plot_table(
    table: CalibrationTable, out: Path, on_plot: Callable[[], None] = lambda: None
) -> tuple[Path, ...]:
    """Write the plots into a folder and return them, the overview first.

    Args:
        table: What to plot.
        out: The folder; made where it is not there, files of the same names are replaced.
        on_plot: Called after each plot.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingPackageError("matplotlib", "plots") from error
    out.mkdir(parents=True, exist_ok=True)
    made = [out / OVERVIEW]
    figure = Figure(figsize=(12, 2 + 0.16 * len(table.tensors)), dpi=100)
    _overview(figure, table)
    _save(figure, made[0])
    on_plot()
    digits = len(str(len(table.tensors)))
    for index, (name, record) in enumerate(table.tensors.items()):
        figure = Figure(figsize=(8, 4), dpi=80)
        _tensor(figure, name, record, table.method)
        made.append(out / f"{index:0{digits}}-{_file_name(name)}.png")
        _save(figure, made[-1])
        on_plot()
    return tuple(made)


def _save(figure: Figure, path: Path) -> None:
    # Without its own metadata the same table gives the same bytes.
    figure.savefig(path, format="png", metadata={"Software": None})


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:80]


def _overview(figure: Figure, table: CalibrationTable) -> None:
    """Draw every tensor's range in shares of its largest magnitude, and what is clipped."""
    ranges, shares = figure.subplots(1, 2, sharey=True, width_ratios=[3, 1])
    rows = np.arange(len(table.tensors))
    records = list(table.tensors.values())
    whole = [max(-r.extremes.lo, r.extremes.hi) or 1.0 for r in records]
    for label, intervals, colour, height in (
        ("smallest to largest", [r.extremes for r in records], "#c7d3e3", 0.8),
        ("kept", [r.range for r in records], "#2f5d8c", 0.4),
    ):
        left = np.array([i.lo for i in intervals]) / whole
        right = np.array([i.hi for i in intervals]) / whole
        ranges.barh(rows, right - left, left=left, height=height, color=colour, label=label)
    ranges.set_xlim(-1.02, 1.02)
    ranges.set_xlabel("value / largest magnitude of the tensor")
    shares.barh(rows, [100 * record.clipped() for record in records], color="#b5483a")
    shares.set_xlabel("values clipped, %")
    ranges.set_yticks(rows, [_text(name) for name in table.tensors], fontsize=6)
    ranges.set_ylim(len(rows) - 0.5, -0.5)
    title = f"{table.method}, {len(table.images)} images, {len(rows)} tensors"
    figure.legend(loc="upper right", ncols=2, fontsize=8)
    figure.suptitle(title, x=0.3)
    figure.tight_layout()


def _tensor(figure: Figure, name: str, record: TensorRecord, method: str) -> None:
    axes: Any = figure.subplots()
    histogram = record.observer().histogram
    if histogram.exponent is None:
        axes.text(0.5, 0.5, "every value is zero", ha="center", transform=axes.transAxes)
    else:
        # As many bars as can be seen, each the sum of whole bins.
        filled = np.flatnonzero(histogram.counts)
        each = max(1, -(-(filled[-1] + 1 - filled[0]) // _BARS))
        edges = np.arange(filled[0], filled[-1] + 1 + each, each)
        counts = np.add.reduceat(histogram.counts, edges[:-1][edges[:-1] <= filled[-1]])
        positions = (edges - histogram.counts.size // 2) * histogram.width
        axes.stairs(counts, positions[: counts.size + 1], fill=True, color="#8fa9c7")
        axes.set_yscale("log")
    for edge in (record.range.lo, record.range.hi):
        axes.axvline(edge, color="#b5483a")
    axes.set_xlabel("value")
    axes.set_ylabel("values counted")
    axes.set_title(
        f"{_text(name)}\n{method}: {record.range.lo:.4g} to {record.range.hi:.4g}, "
        f"{100 * record.clipped():.3g} % clipped",
        fontsize=9,
    )
    figure.tight_layout()


def _text(name: str) -> str:
    """Return a name as it is: matplotlib would take what stands between two $ as mathematics."""
    return name[:60].replace("$", r"\$")
