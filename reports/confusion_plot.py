"""A confusion matrix as a picture."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final

import numpy as np

from ..core.errors import MissingPackageError
from ..core.files import write_atomic
from ..core.text import printable
from ..drift.evaluation import Evaluation

# More have no room for their names, or for the numbers in their cells.
_NAMED: Final = 60
_NUMBERED: Final = 20
_LONGEST: Final = 24


def plot_confusion(found: Evaluation, path: Path) -> None:
    """Write the matrix as a PNG: rows are true classes, columns answers, shades a row's shares.

    Only classes that have images or were answered are shown.

    Raises:
        MissingPackageError: matplotlib is not installed.
        OSError: The file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingPackageError("matplotlib", "plots") from error
    places = {score.index: place for place, score in enumerate(found.per_class)}
    counts = np.zeros((len(places), len(places)), np.int64)
    for cell in found.confusion:
        counts[places[cell.truth], places[cell.answer]] = cell.images
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = float(np.clip(0.32 * len(places) + 2.5, 5, 16))
    figure = Figure(figsize=(side, side), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    axes.set_xlabel("answer")
    axes.set_ylabel("true class")
    low, high = found.top1_interval
    axes.set_title(f"top-1 {found.top1:.2f} % ({low:.2f} .. {high:.2f}), {found.images} images")
    if len(places) <= _NAMED:
        names = [_short(found.name_of(score.index)) for score in found.per_class]
        axes.set_xticks(range(len(names)), names, rotation=90, parse_math=False)
        axes.set_yticks(range(len(names)), names, parse_math=False)
    if len(places) <= _NUMBERED:
        for row, column in zip(*np.nonzero(counts), strict=True):
            dark = shares[row, column] > 0.5
            axes.text(
                column, row, str(counts[row, column]), ha="center", va="center",
                color="white" if dark else "black", fontsize=8,
            )  # fmt: skip
    file = io.BytesIO()
    # Without its own metadata the same numbers give the same bytes.
    figure.savefig(file, format="png", metadata={"Software": None})
    write_atomic(path, file.getvalue())


def _short(name: str) -> str:
    text = printable(name)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
