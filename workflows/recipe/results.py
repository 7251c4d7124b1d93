"""What a recipe leaves: its table as JSON and as a plot, and both in what it ships."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from ...bundle import Bundle, Draft, write_bundles
from ...bundle.recipe import Recipe, RecipeStep
from ...core.files import atomic_file, write_atomic
from .state import Judged

TABLE: Final = "recipe.json"
PLOT: Final = "recipe.png"
_SCHEMA_VERSION: Final = 1
# Points squared of the largest file's mark.
_LARGEST: Final = 1500.0


def write_table(steps: Sequence[RecipeStep], verdicts: Mapping[str, Judged], file: Path) -> None:
    """Write all rows and verdicts (JSON)."""
    document = {
        "schema_version": _SCHEMA_VERSION,
        "steps": steps,
        "verdicts": {
            target: {"outcome": found.outcome, "images_needed": found.images_needed}
            for target, found in verdicts.items()
        },
    }
    write_atomic(file, msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")


def stamp(bundle: Path, recipe: Recipe) -> None:
    """Add where it comes from to a bundle, which is then whole in the old or in the new form."""
    opened = Bundle(bundle)
    if opened.manifest.recipe == recipe:
        return
    files = {name: opened.read(name) for name in opened.manifest.files}
    manifest = msgspec.structs.replace(opened.manifest, recipe=recipe)
    write_bundles([Draft(path=bundle, manifest=manifest, files=files)])


def plot(steps: Sequence[RecipeStep], file: Path) -> None:
    """Draw top-1 against latency, each mark as large as its file; a PNG.

    Files that are not timed are left out; where none is timed, the size is the axis.
    """
    from matplotlib.figure import Figure

    timed = [step for step in steps if step.timing is not None]
    shown = timed or list(steps)
    largest = max(step.size_bytes for step in shown)
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.subplots()
    places = [step.timing.ms if step.timing else step.size_bytes / 1e6 for step in shown]
    top1 = [step.top1.value for step in shown]
    axes.plot(places, top1, color="0.8", zorder=0)
    for index, (place, step) in enumerate(zip(places, shown, strict=True)):
        colour = f"C{index}"
        bars = [[step.top1.value - step.top1.low], [step.top1.high - step.top1.value]]
        axes.errorbar(place, step.top1.value, yerr=bars, color="0.6", capsize=3, zorder=1)
        area = _LARGEST * step.size_bytes / largest
        label = f"{step.stage}, {step.precision}, {step.size_bytes / 1e3:,.0f} kB"
        axes.scatter(place, step.top1.value, s=area, alpha=0.6, zorder=2, color=colour)
        axes.plot(place, step.top1.value, "o", markersize=3, color=colour, label=label)
    axes.margins(0.2)
    axes.set_xlim(left=0)
    axes.set_xlabel("ms, one image, one thread, this machine" if timed else "MB of the file")
    axes.set_ylabel(f"top-1, % of {shown[0].images} images (95 %)")
    axes.set_title(f"{shown[0].target}: area is the file's size", fontsize="medium")
    axes.legend(fontsize="small")
    with atomic_file(file) as stream:
        figure.savefig(stream, format="png", dpi=120)
