"""Accuracy against size and latency: conversions of one model or several on the same images."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..core.values import Precision


class Point(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A conversion.

    Attributes:
        model: Its model's name.
        name: What was asked for, e.g. "int8, best, 0.5 points".
        target: What it is for.
        precision: Of its file.
        bundle: Where it is: it can be shipped as it stands.
        reached: Whether it keeps the budget that it was made with, on the tuning images.
        top1: Right answers, in percent.
        lower: Of the 95 % interval of that (Wilson), in percent.
        upper: Likewise.
        drop: Points of top-1 lost against its own float model on the same images.
        size_bytes: Of the file that ran.
        left_float: How many layers are float in a file that is not.
        backend: What ran.
        simulated: Whether that is not what runs on the device.
        latency_ms: Median of one image here; None where it was simulated.
        front: Whether it keeps its budget, and no other that does for the target, of whichever
            model, is better in one of accuracy, size and latency and as good in the others.
    """

    model: str
    name: str
    target: str
    precision: Precision
    bundle: str
    reached: bool
    top1: float
    lower: float
    upper: float
    drop: float
    size_bytes: int
    left_float: int
    backend: str
    simulated: bool
    latency_ms: float | None
    front: bool = False


class SweptModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model.

    Attributes:
        name: Which points' ``model`` it is.
        float_top1: Right answers in float32, in percent.
    """

    name: str
    float_top1: float


class Sweep(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was tried.

    Attributes:
        models: In the order in which they were given.
        images: How many judged.
        overlap: How many were left out because they had calibrated or tuned.
        truth: Where the right answers come from.
        points: By target, in the order in which they were made.
    """

    models: tuple[SweptModel, ...]
    images: int
    overlap: int
    truth: str
    points: tuple[Point, ...]

    def title(self, point: Point) -> str:
        """Return what a conversion is called: with its model's name where there are several."""
        return point.name if len(self.models) == 1 else f"{point.model}, {point.name}"

    def to_json(self) -> bytes:
        """Return it as indented JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


def with_front(points: Sequence[Point]) -> tuple[Point, ...]:
    """Mark those that no other conversion for the same target beats.

    What missed its budget takes no part: it is not to be shipped.
    """
    able = [point for point in points if point.reached]
    return tuple(
        msgspec.structs.replace(
            one,
            front=one.reached
            and not any(_beats(other, one) for other in able if other.target == one.target),
        )
        for one in points
    )


def _beats(one: Point, other: Point) -> bool:
    mine, theirs = _costs(one), _costs(other)
    pairs = list(zip(mine, theirs, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def _costs(point: Point) -> tuple[float, ...]:
    latency = 0.0 if point.latency_ms is None else point.latency_ms
    return (-point.top1, point.size_bytes, latency)
