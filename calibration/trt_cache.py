"""TensorRT's calibration cache: one scale per tensor, as text.

The first line names TensorRT's version and the algorithm, which must be that of the calibrator that
will read it; each other line is ``name: hex``, the big-endian IEEE-754 float32 of the scale.
TensorRT 8 to 10 read it, 11 has no calibrators.
"""

from __future__ import annotations

import math
import re
import struct
from typing import Final

from ..core.errors import CalibrationError
from ..core.ranges import RangeTable
from ..core.values import QuantScheme
from .scheme import activation_params

HEADER: Final = "TRT-8503-EntropyCalibration2"

_SYMMETRIC: Final = QuantScheme(activations="symmetric", placement="fused")
_LINE: Final = re.compile(r"(?P<name>.+): (?P<scale>[0-9a-f]{1,8})")


def format_cache(table: RangeTable, header: str = HEADER) -> str:
    """Return the cache of a table: the scales that its explicit Q/DQ graph has.

    Raises:
        CalibrationError: A tensor's name cannot stand in the text.
    """
    lines = [header]
    for name, interval in table.ranges.items():
        if "\n" in name or "\r" in name:
            raise CalibrationError(f"tensor {name!r}: its name cannot stand in a TensorRT cache")
        scale = activation_params(interval, _SYMMETRIC).scale
        lines.append(f"{name}: {struct.pack('>f', scale).hex()}")
    return "\n".join(lines) + "\n"


def parse_cache(text: str) -> dict[str, float]:
    """Return each tensor's scale, in the tensor's units per code.

    Raises:
        CalibrationError: Not a calibration cache.
    """
    header, *lines = text.splitlines() or [""]
    if not header.startswith("TRT-"):
        raise CalibrationError(
            f"not a TensorRT calibration cache: expected a first line like {HEADER!r}, found "
            f"{header[:60]!r}"
        )
    scales: dict[str, float] = {}
    for number, line in enumerate(lines, 2):
        if not line.strip():
            continue
        found = _LINE.fullmatch(line.rstrip())
        if found is None:
            raise CalibrationError(
                f"line {number} of the TensorRT cache: expected 'name: hex', found {line[:60]!r}"
            )
        (scale,) = struct.unpack(">f", bytes.fromhex(found["scale"].zfill(8)))
        if not 0 <= scale < math.inf:
            raise CalibrationError(
                f"line {number} of the TensorRT cache: expected a scale, found {scale}"
            )
        scales[found["name"]] = scale
    return scales
