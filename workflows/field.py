"""A server's sketch against the fingerprint of the bundle that it serves."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from ..bundle import Bundle
from ..core.errors import BadInputError, BundleError, DataError
from ..drift.budgets import Budgets
from ..drift.field import FieldReport, judge_field
from ..drift.gate import combined
from ..serve.field import FieldSketch
from .fetch import fetch, is_url

MAX_SKETCH_BYTES: Final = 64 << 20
_PATH: Final = "/v1/field"
_CHANNELS: Final = {
    "rgb": ("red", "green", "blue"), "bgr": ("blue", "green", "red"), "gray": ("gray",),
}  # fmt: skip
# Of the others confidences move by rounding alone.
_FLOAT: Final = {"fp32", "fp16"}


def field_drift(
    bundle: Path, source: str, *, max_shift: float, budgets: Budgets, timeout_s: float
) -> FieldReport:
    """Say whether the images that a server saw are like those of the calibration.

    Args:
        bundle: The bundle that it serves.
        source: The server's address, or a file of what its ``/v1/field`` answered.
        max_shift: The budget of every statistic, percentage points.
        budgets: The confidence and the looks.
        timeout_s: Within which a server must have answered.

    Raises:
        BundleError: The bundle is damaged, or has no fingerprint.
        DataError: The sketch is none, or of another bundle.
        DeviceError: The server cannot be reached.
        UsageError: The budget is out of range, or the server wants another key.
    """
    opened = Bundle(bundle)
    manifest = opened.manifest
    if manifest.fingerprint is None:
        raise BundleError(
            f"{bundle}: the bundle was exported without calibration images (precision "
            f"{manifest.precision}), so that it has no fingerprint to compare the field with; "
            "export it with --calib DIR"
        )
    sketch = read_sketch(source, timeout_s)
    if sketch.bundle_sha256 != opened.sha256:
        raise DataError(
            f"{source}: the sketch is of bundle {sketch.bundle_sha256[:12]}, and {bundle} is "
            f"{opened.sha256[:12]}; give the bundle that the server runs"
        )
    checks = judge_field(
        manifest.fingerprint, sketch.fingerprint,
        channels=_CHANNELS[manifest.preprocess.color],
        quantized=manifest.precision not in _FLOAT,
        max_shift=max_shift, budgets=budgets,
    )  # fmt: skip
    return FieldReport(
        bundle=str(bundle), field=source, bundle_sha256=opened.sha256,
        calibration_images=manifest.fingerprint.images,
        field_images=sketch.fingerprint.images,
        confidence=budgets.confidence, looks=budgets.looks,
        outcome=combined([check.outcome for check in checks]), checks=checks,
    )  # fmt: skip


def read_sketch(source: str, timeout_s: float) -> FieldSketch:
    """Return the sketch of a server, or of a file.

    Raises:
        DataError: It is none.
        DeviceError: The server cannot be reached.
        OSError: The file cannot be read.
        UsageError: The server wants another key.
    """
    if is_url(source):
        data = fetch(source, path=_PATH, most_bytes=MAX_SKETCH_BYTES, timeout_s=timeout_s)
    else:
        with Path(source).open("rb") as file:
            data = file.read(MAX_SKETCH_BYTES + 1)
        if len(data) > MAX_SKETCH_BYTES:
            raise BadInputError(f"{source}: larger than {MAX_SKETCH_BYTES} bytes: not a sketch")
    try:
        return msgspec.json.decode(data, type=FieldSketch)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise DataError(
            f"{source}: expected what a server's {_PATH} answers, found something else: {error}"
        ) from error
