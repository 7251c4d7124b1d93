"""How a bundle's model was compressed: each stage's cost and gain, as a recipe measured them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from ..core.values import Precision


class Estimate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A measured value with its 95 % interval."""

    value: float
    low: float
    high: float


class Timing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How fast a file is, one image on one thread of the machine that ran the recipe.

    Attributes:
        ms: For an image.
        against_before: How many times as fast as the file of the stage before, run in turn with
            it; None of the first.
        against_start: Likewise, as the model at the start.
    """

    ms: float
    against_before: Estimate | None = None
    against_start: Estimate | None = None


class RecipeStep(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a stage left, as a file of a target; every number is of this file.

    Attributes:
        stage: ``start`` or what was done.
        options: What was asked of it, without paths.
        target: Whose file it is.
        precision: Of the file.
        parameters: Of the model; None where that is a graph.
        size_bytes: Of the file.
        images: How many judged.
        top1: In percent of them, with Wilson's interval.
        points: Top-1 less that of the stage before, in points, on the same images, with the exact
            paired interval; None of the first.
        points_from_start: Likewise, less that of the model at the start.
        timing: None where the file does not run here, or is for another target than the others.
    """

    stage: str
    options: dict[str, Any]
    target: str
    precision: Precision
    parameters: int | None
    size_bytes: int
    images: int
    top1: Estimate
    points: Estimate | None = None
    points_from_start: Estimate | None = None
    timing: Timing | None = None


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The stages behind a bundle, in their order, the bundle itself last.

    Attributes:
        steps: What each left.
        verdict: The gate's on the bundle against the model at the start; None where none judged.
    """

    steps: tuple[RecipeStep, ...]
    verdict: Literal["passed", "failed", "undecided"] | None = None
