"""Accuracy against size and latency: several conversions of one model on the same images."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..core.values import Precision


class Point(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A conversion.

    Attributes:
        name: What was asked for, e.g. "int8, best, 0.5 points".
        target: What it is for.
        precision: Of its file.
        bundle: Where it is: it can be shipped as it stands.
        reached: Whether it keeps the budget that it was made with, on the tuning images.
        top1: Right answers, in percent.
        lower: Of the 95 % interval of that (Wilson), in percent.
        upper: Likewise.
        drop: Points of top-1 lost against the float model on the same images.
        size_bytes: Of the file that ran.
        left_float: How many layers are float in a file that is not.
        backend: What ran.
        simulated: Whether that is not what runs on the device.
        latency_ms: Median of one image here; None where it was simulated.
        front: Whether no other conversion for the target is better in one of accuracy, size and
            latency and as good in the others.
    """

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


class Sweep(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was tried.

    Attributes:
        model: Its name.
        images: How many judged.
        overlap: How many were left out because they had calibrated or tuned.
        truth: Where the right answers come from.
        float_top1: Of the float model, in percent.
        points: By target, in the order in which they were made.
    """

    model: str
    images: int
    overlap: int
    truth: str
    float_top1: float
    points: tuple[Point, ...]

    def to_json(self) -> bytes:
        """Return it as indented JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


def with_front(points: Sequence[Point]) -> tuple[Point, ...]:
    """Mark those that no other conversion for the same target beats."""
    return tuple(
        msgspec.structs.replace(
            one,
            front=not any(
                _beats(other, one) for other in points
                if other is not one and other.target == one.target
            ),
        )
        for one in points
    )  # fmt: skip


def _beats(one: Point, other: Point) -> bool:
    mine, theirs = _costs(one), _costs(other)
    pairs = list(zip(mine, theirs, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def _costs(point: Point) -> tuple[float, ...]:
    latency = 0.0 if point.latency_ms is None else point.latency_ms
    return (-point.top1, point.size_bytes, latency)
