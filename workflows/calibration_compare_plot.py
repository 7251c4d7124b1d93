"""A plot of a comparison of calibration methods: differences from min-max with their intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from ..core.errors import MissingPackageError, UsageError
from ..drift.candidates import Measure
from .calibration_compare import CalibrationComparison, SchemeResult

_TITLES: Final[dict[Measure, str]] = {
    "agreement": "agreement, points",
    "sqnr_db": "SQNR, dB",
    "kl": "KL, nats (smaller is better)",
    "top1": "top-1, points",
    "top5": "top-5, points",
}
_COLOURS: Final = {"better": "#2f7d4f", "level": "#7a7a7a", "worse": "#b5483a"}


def check_plot(out: Path) -> None:
    """Refuse what could not be drawn, before any work is done.

    Raises:
        UsageError: The file is no PNG.
        MissingPackageError: matplotlib is not installed.
    """
    if out.suffix.lower() != ".png":
        raise UsageError(f"--plot draws a PNG, found {out.name!r}; give --plot FILE.png")
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingPackageError("matplotlib", "plots") from error


def plot_comparison(found: CalibrationComparison, out: Path) -> None:
    """Draw a row for each scheme and a column for each measure.

    Raises:
        UsageError, MissingPackageError: As ``check_plot``.
    """
    check_plot(out)
    from matplotlib.figure import Figure

    measures = list(found.schemes[0].methods[0].measures)
    rows = len(found.schemes)
    figure = Figure(
        figsize=(2.9 * len(measures) + 1, 1.1 + rows * (1.0 + 0.34 * len(found.schemes[0].methods)))
    )
    grid: Any = figure.subplots(rows, len(measures), squeeze=False)
    for axes, measure in zip(grid[0], measures, strict=True):
        axes.set_title(_TITLES[measure], fontsize=9)
    for row, scheme in zip(grid, found.schemes, strict=True):
        for axes, measure in zip(row, measures, strict=True):
            _draw(axes, scheme, measure)
        how = scheme.scheme
        row[0].set_ylabel(
            f"{', '.join(scheme.targets)}\nint{how.activation_bits}, {how.activations}", fontsize=8
        )
        for axes in row[1:]:
            axes.tick_params(labelleft=False)
    figure.suptitle(
        f"Difference from min-max on {found.judged_on} images, calibrated on "
        f"{found.calibrated_on} others\ngreen: better, red: worse, grey: level with min-max "
        f"({100 * found.confidence:g} % confidence in all of a panel)",
        fontsize=10,
    )
    figure.tight_layout()
    out.parent.mkdir(parents=True, exist_ok=True)
    # Without its own metadata the same comparison gives the same bytes.
    figure.savefig(out, format="png", dpi=110, metadata={"Software": None})


def _draw(axes: Any, scheme: SchemeResult, measure: Measure) -> None:
    names = []
    for place, one in enumerate(scheme.methods):
        measured = one.measures[measure]
        names.append(one.method)
        value = f"{measured.value:.4f}" if measure == "kl" else f"{measured.value:.2f}"
        colour, at = "black", 0.0
        if measured.difference is not None and measured.verdict is not None:
            ends = np.array([measured.difference.low, measured.difference.high])
            colour, at = _COLOURS[measured.verdict], measured.difference.difference
            axes.plot(ends, [place, place], color=colour, linewidth=2, solid_capstyle="butt")
        axes.plot([at], [place], "o", color=colour, markersize=5)
        axes.annotate(
            value, (at, place), xytext=(0, 5), textcoords="offset points", ha="center", fontsize=7,
            color=colour, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )  # fmt: skip
    axes.axvline(0.0, color="black", linewidth=0.8, linestyle=":", zorder=0)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.7)
    axes.tick_params(axis="x", labelsize=7)
    axes.locator_params(axis="x", nbins=5)
    axes.margins(x=0.12)
