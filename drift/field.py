"""Whether the images of the field are like those of the calibration: the verdict on a sketch.

Each statistic is a check of its own: passed where the upper bound of its true distance lies within
the budget, failed where the lower bound lies beyond it, else undecided. The levels are shared as in
``gate``.
"""

from __future__ import annotations

import math
from typing import Final, TypeAlias

import msgspec
import numpy as np

from ..core.errors import DataError, UsageError
from ..core.fingerprint import CONFIDENCE_BINS, PIXEL_BINS, Fingerprint
from ..core.text import as_utf8
from ..core.version import VERSION
from .budgets import Budgets
from .gate import Outcome
from .moved import Chance, Distance, Measure, Shares, images_for

SCHEMA_VERSION: Final = 1
DEFAULT_SHIFT: Final = 20.0
# With more, some class is always elsewhere by chance: then runs of neighbours are compared.
MOST_SETS: Final = 16
_CLASSES_NAMED: Final = 3
# The middles of the bins.
_CODES: Final[Shares] = (np.arange(PIXEL_BINS, dtype=np.float64) + 0.5) * (256 / PIXEL_BINS) - 0.5
_CONFIDENCES: Final[Shares] = (np.arange(CONFIDENCE_BINS, dtype=np.float64) + 0.5) / CONFIDENCE_BINS
# A server's counts are read while it counts: of an image some may not be there yet.
_UNREAD: Final = 64
_MOST_IMAGES: Final = 1 << 53  # a float64 counts no further

_Counts: TypeAlias = "tuple[int, ...]"


class ClassShare(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often a class was the answer, in percent of the images."""

    class_index: int
    calibration: float
    field: float


class FieldCheck(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One statistic against the budget.

    Attributes:
        statistic: "pixels (red)" and the like, "confidence" or "classes".
        distance: "order" Kolmogorov's, "sets" total variation, "runs" Kuiper's.
        slack: By how many bins the conversion may have moved each image.
        limit: The budget, in percentage points.
        value: The distance, in percentage points; None without an image.
        lower: The true distance lies above, at the level at which it could fail.
        upper: The true distance lies below, at the level at which it could pass.
        outcome: Of this statistic.
        images_needed: How many images of the field would probably decide it, if they go on like
            these; None where it is decided, or where no number would do.
        calibration_images_needed: With how many images of the calibration, and as many of the
            field, it would be decided; only where no number of the field's alone would do.
        calibration_mean: Of the codes, 0..255, or of the confidences; None for classes.
        field_mean: Likewise.
        classes: Those whose share changed most.
    """

    statistic: str
    distance: Distance
    slack: int
    limit: float
    value: float | None
    lower: float
    upper: float
    outcome: Outcome
    images_needed: int | None = None
    calibration_images_needed: int | None = None
    calibration_mean: float | None = None
    field_mean: float | None = None
    classes: tuple[ClassShare, ...] = ()


class FieldReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a comparison of the field with the calibration found.

    Attributes:
        bundle: As the user named it.
        field: Where the sketch comes from, as the user named it.
        bundle_sha256: Hash of the bundle's manifest, which the sketch names too.
        calibration_images: How many images the fingerprint is of.
        field_images: How many images were seen.
        confidence: Of the verdict, in percent.
        looks: How often the field may be judged; they share the risk.
        outcome: Failed where a check failed, passed where all passed, else undecided.
        checks: One per statistic.
        edgecls: Its version.
    """

    bundle: str
    field: str
    bundle_sha256: str
    calibration_images: int
    field_images: int
    confidence: float
    looks: int
    outcome: Outcome
    checks: tuple[FieldCheck, ...]
    edgecls: str = VERSION
    schema_version: int = SCHEMA_VERSION

    @property
    def exit_code(self) -> int:
        """0 passed, 1 failed, 5 undecided."""
        return {"passed": 0, "failed": 1, "undecided": 5}[self.outcome]

    def to_json(self) -> bytes:
        """Return the report as JSON, indented, ending with a newline; the same every time."""
        named = msgspec.structs.replace(
            self, bundle=as_utf8(self.bundle), field=as_utf8(self.field)
        )
        return msgspec.json.format(msgspec.json.encode(named), indent=2) + b"\n"


def judge_field(
    calibration: Fingerprint,
    field: Fingerprint,
    *,
    channels: tuple[str, ...],
    quantized: bool,
    max_shift: float,
    budgets: Budgets,
) -> tuple[FieldCheck, ...]:
    """Compare what was seen with what the ranges were measured on, statistic by statistic.

    Args:
        calibration: The bundle's fingerprint; its confidences and classes are the float model's.
        field: Of the images that were seen, by the bundle's own model.
        channels: The channels' names, in their order.
        quantized: Whether that model is a quantized one: its confidences may then differ from the
            float model's by one bin, 0.05, which does not count.
        max_shift: The budget of every statistic, percentage points.
        budgets: The confidence and the looks; its limits are not read.

    Raises:
        DataError: A fingerprint is none, or both are not of the same model.
        UsageError: The budget or the risk is out of range.
    """
    budgets.check()
    if not 0 < max_shift < 100:
        raise UsageError(
            f"--max-shift must lie above 0 and below 100 points, found {max_shift:g}; no number of "
            "images shows that nothing has moved, and nothing moves by more than 100"
        )
    if not calibration.images:
        raise DataError("the calibration's fingerprint is of no image; calibrate on images")
    for name, found in (("calibration", calibration), ("field", field)):
        _check_form(found, name, len(channels), len(calibration.class_counts))
    order = Measure(distance="order")
    rows: list[tuple[str, Measure, _Counts, _Counts, Shares | None]] = [
        (f"pixels ({name})", order, was, now, _CODES)
        for name, was, now in zip(
            channels, calibration.pixel_histogram, field.pixel_histogram, strict=True
        )
    ]
    rows.append((
        "confidence", Measure(distance="order", slack=int(quantized)),
        calibration.confidence_histogram, field.confidence_histogram, _CONFIDENCES,
    ))  # fmt: skip
    few = len(calibration.class_counts) <= MOST_SETS
    rows.append((
        "classes", Measure(distance="sets" if few else "runs"), calibration.class_counts,
        field.class_counts, None,
    ))  # fmt: skip
    alpha = budgets.alpha
    return tuple(
        _check(
            name, measure, np.asarray(was, np.float64), np.asarray(now, np.float64),
            images=calibration.images, others=field.images, values=values, limit=max_shift,
            alpha=alpha, shared=alpha / len(rows),
        )
        for name, measure, was, now, values in rows
    )  # fmt: skip


def _check(
    name: str, measure: Measure, was: Shares, now: Shares, *, images: int, others: int,
    values: Shares | None, limit: float, alpha: float, shared: float,
) -> FieldCheck:  # fmt: skip
    budget = limit / 100
    one = was / was.sum()
    seen = others > 0 and now.sum() > 0
    other = now / now.sum() if seen else one
    counted = others if seen else images
    chance = Chance(measure, one, images, other, counted)
    passes, fails = chance.margin(alpha), chance.margin(shared)
    value = float(measure.between(one, other))
    lower, upper = (max(value - fails, 0.0), min(value + passes, 1.0)) if seen else (0.0, 1.0)
    outcome: Outcome = "passed" if upper < budget else "failed" if lower > budget else "undecided"
    needed = recalibrate = None
    # Chance alone keeps histograms apart; what it adds goes as images come.
    likely = max(value - chance.mean, 0.0)
    if outcome == "undecided" and likely != budget:
        margin = passes + chance.mean if likely < budget else fails - chance.mean
        needed, again = images_for(margin, images, counted, abs(budget - likely))
        if needed is None:
            recalibrate = again
        else:
            needed = max(needed, others + 1)  # a number above the present one
    means = (None, None) if values is None else (float(one @ values), float(other @ values))
    return FieldCheck(
        statistic=name, distance=measure.distance, slack=measure.slack, limit=limit,
        value=100 * value if seen else None, lower=100 * lower, upper=100 * upper,
        outcome=outcome, images_needed=needed, calibration_images_needed=recalibrate,
        calibration_mean=means[0], field_mean=means[1] if seen else None,
        classes=_most_changed(one, other) if values is None and seen else (),
    )  # fmt: skip


def _most_changed(one: Shares, other: Shares) -> tuple[ClassShare, ...]:
    changed = np.argsort(-np.abs(other - one), kind="stable")[:_CLASSES_NAMED]
    return tuple(
        ClassShare(class_index=int(i), calibration=100 * float(one[i]), field=100 * float(other[i]))
        for i in changed
        if one[i] != other[i]
    )


def _check_form(found: Fingerprint, name: str, channels: int, classes: int) -> None:
    """Raise DataError where counts cannot be of these images."""
    form = (
        [len(row) for row in found.pixel_histogram],
        len(found.confidence_histogram),
        len(found.class_counts),
    )
    wanted = ([PIXEL_BINS] * channels, CONFIDENCE_BINS, classes)
    if form != wanted or not classes:
        raise DataError(
            f"the {name}'s fingerprint: expected pixel bins, confidence bins and classes {wanted}, "
            f"found {form}; take the sketch and the bundle of the same server"
        )
    rows = (*found.pixel_histogram, found.confidence_histogram, found.class_counts)
    if found.images < 0 or any(min(row) < 0 for row in rows):
        raise DataError(f"the {name}'s fingerprint has a count below 0; fetch it again")
    if found.images > _MOST_IMAGES:
        raise DataError(
            f"the {name}'s fingerprint: expected {_MOST_IMAGES} images at most, found "
            f"{found.images}; fetch it again"
        )
    slack = _UNREAD + found.images // 100
    for what, row in zip(("confidences", "answers"), rows[-2:], strict=True):
        if abs(sum(row) - found.images) > slack:
            raise DataError(
                f"the {name}'s fingerprint counts {sum(row)} {what} of {found.images} images; "
                "fetch it again"
            )
    pixels = [sum(row) for row in found.pixel_histogram]
    if min(pixels) < (found.images > _UNREAD) or max(pixels) - min(pixels) > math.ceil(
        slack * max(pixels) / max(found.images, 1)
    ):
        raise DataError(
            f"the {name}'s fingerprint counts {pixels} pixels in the channels, which should be "
            "equally many; fetch it again"
        )
