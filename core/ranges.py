"""The table of ranges: what calibration measured, on the superset of every scheme's points."""

from __future__ import annotations

import hashlib
import math
from typing import Final, Literal, get_args

import msgspec

CalibrationMethod = Literal["minmax", "entropy", "percentile", "mse"]
METHODS: Final[tuple[CalibrationMethod, ...]] = get_args(CalibrationMethod)
DEFAULT_PERCENTILE: Final = 99.99


class Range(msgspec.Struct, frozen=True, array_like=True):
    """The interval (lo, hi) of a tensor's values that quantization keeps."""

    lo: float
    hi: float

    def __post_init__(self) -> None:
        """Refuse an interval that is none."""
        if not (math.isfinite(self.lo) and math.isfinite(self.hi) and self.lo <= self.hi):
            raise ValueError(f"expected finite lo <= hi, found ({self.lo}, {self.hi})")


class RangeTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ranges by tensor name, with where they come from.

    Attributes:
        ranges: One entry for each floating-point activation of the graph, its inputs included.
        model_sha256: Hash of the ONNX graph that was observed.
        data_sha256: Hash over the images' bytes, in the order of their own hashes.
        method: How a range is chosen from the values.
        images: How many images were seen.
        seed: What chose them.
        percentile: What the percentile method keeps, in percent; None for the other methods.
        learned: How many of the ranges training chose instead.
    """

    ranges: dict[str, Range]
    model_sha256: str
    data_sha256: str
    method: CalibrationMethod
    images: int
    seed: int
    percentile: float | None = None
    learned: int = 0

    def sha256(self) -> str:
        """Return the hash of the table's canonical JSON."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()
