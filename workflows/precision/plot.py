"""A plot of what each layer's quantization costs alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...core.files import atomic_file
from ..calibration_compare_plot import check_plot
from .sensitivity import LayerCost, SchemeSensitivity, Sensitivity


def plot_sensitivity(found: Sensitivity, out: Path) -> None:
    """Draw, for each scheme, the noise that each layer adds to the logits, the noisiest on top.

    Raises:
        UsageError, MissingPackageError: As ``check_plot``.
    """
    check_plot(out)
    from matplotlib.figure import Figure

    columns = len(found.schemes)
    rows = max(len(scheme.layers) for scheme in found.schemes)
    figure = Figure(figsize=(1 + 5 * columns, 1.6 + 0.18 * rows), layout="constrained")
    axes: Any = figure.subplots(1, columns, squeeze=False)
    for one, scheme in zip(axes[0], found.schemes, strict=True):
        _draw(one, scheme)
    figure.suptitle(
        f"Noise in the logits where one layer alone is quantized, {found.judged_on} images",
        fontsize=10,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(out) as stream:
        # Without its own metadata the same measurement gives the same bytes.
        figure.savefig(stream, format="png", dpi=110, metadata={"Software": None})


def _draw(axes: Any, scheme: SchemeSensitivity) -> None:
    layers = scheme.layers
    places = range(len(layers))
    axes.barh(places, [_noise(layer) for layer in layers], color="#3b6ea5", height=0.7)
    axes.set_yticks(places, [layer.name for layer in layers], fontsize=6)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("noise power over the logits' power", fontsize=8)
    axes.tick_params(axis="x", labelsize=7)
    if scheme.all.sqnr_db is not None:
        every = 10 ** (-scheme.all.sqnr_db / 10)
        axes.axvline(every, color="#b5483a", linewidth=1, linestyle="--")
        axes.annotate("all layers", (every, 0), fontsize=7, color="#b5483a", ha="right")
    axes.set_title(
        f"{', '.join(scheme.targets)}: int{scheme.scheme.activation_bits}, "
        f"{scheme.scheme.activations}",
        fontsize=9,
    )


def _noise(layer: LayerCost) -> float:
    return 0.0 if layer.cost.sqnr_db is None else 10.0 ** (-layer.cost.sqnr_db / 10)
