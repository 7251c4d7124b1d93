"""An explanation in words, the same in every report."""

from __future__ import annotations

from typing import Final

from .explanation import Cost, Explanation, LayerFinding
from .wording import number

COSTS_EXPLAINED: Final = (
    "Costs are points of the measure; those of all stages add up to the whole drop. True cost: the "
    "95 % interval. Alone: the cost of this change with no other one. Shown: the data show that it "
    "costs something."
)
LAYER_HEADINGS: Final = (
    "layer", "operator", "error", "as planned", "of its inputs", "scale", "planned scale",
)  # fmt: skip


def explained(found: Explanation) -> str:
    """Return what was compared, in a sentence."""
    what = "Top-1" if found.measure == "top1" else "Agreement with the reference"
    return (
        f"{what} on {found.images} images: reference {found.reference} "
        f"{number(found.reference_percent)} %, candidate {found.candidate} "
        f"{number(found.candidate_percent)} %."
        + (f" {found.left_out} images could not be compared." if found.left_out else "")
    )


def blame_sentence(found: Explanation) -> str:
    """Return which stages cost something, the most costly first."""
    if not found.blamed:
        return "No stage is shown to cost anything."
    return f"Shown to cost something: {', '.join(stage.stage for stage in found.blamed)}."


def cost_cells(cost: Cost) -> tuple[str, str]:
    """Return the measured cost and the interval of the true one, in points."""
    return number(cost.points), f"{number(cost.lower)} .. {number(cost.upper)}"


def layers_heading(found: Explanation) -> str:
    """Return what the listed layers have in common."""
    if found.layers[0].departs:
        return "The first layers that depart, each fed with the float model's own values"
    return "No layer departs from its plan; these add the largest errors"


def layer_cells(layer: LayerFinding) -> tuple[str, ...]:
    """Return a layer's numbers, under ``LAYER_HEADINGS`` from the third on."""
    errors = (layer.error, layer.planned_error, layer.inputs_error)
    scales = (layer.scale, layer.planned_scale)
    return (
        *(f"{100 * error:.2f} %" for error in errors),
        *("-" if scale is None else f"{scale:.4g}" for scale in scales),
    )
