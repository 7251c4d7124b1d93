"""Implicit quantization: TensorRT 10 quantizes a float graph itself, by a calibration cache.

TensorRT 11 and TensorRT-RTX have none of it: there int8 is what stands between Q and DQ.
"""

from __future__ import annotations

import re
from typing import Any, Final

from ..core.errors import BackendUnavailableError, BundleError

# TensorRT reads only a cache of its own version; the scales mean the same in all.
_HEADER: Final = re.compile(rb"TRT-\w+-EntropyCalibration2\r?\n")


def quantize_implicitly(trt: Any, config: Any, free_batch: Any, cache: bytes, title: str) -> Any:
    """Let a build run in INT8, by the scales of a cache, and in FP16 where it has none.

    Args:
        trt: The module.
        config: The build's.
        free_batch: Its optimisation profile; None where every shape is fixed.
        cache: As ``calibration.trt_cache`` writes it.
        title: Which TensorRT, for errors.

    Returns:
        The calibrator, which must live as long as the build; its ``asked`` is whether TensorRT
        wanted images, so that the cache was not taken.

    Raises:
        BackendUnavailableError: This TensorRT has no calibrators.
        BundleError: ``cache`` is none.
    """
    if not (
        hasattr(trt, "IInt8EntropyCalibrator2")
        and hasattr(trt.BuilderFlag, "INT8")
        and hasattr(trt.BuilderFlag, "FP16")
        and hasattr(config, "int8_calibrator")
        and hasattr(config, "set_calibration_profile")
    ):
        raise BackendUnavailableError(
            f"{title} has no implicit quantization (TensorRT 11 and TensorRT-RTX dropped it); "
            "leave --implicit-int8 out: the bundle's int8 graph has the same scales as Q/DQ"
        )
    with_header = under_version(cache, str(trt.__version__))

    class Calibrator(trt.IInt8EntropyCalibrator2):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.asked = False

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, names: list[str]) -> None:
            del names
            self.asked = True

        def read_calibration_cache(self) -> bytes:
            return with_header

        def write_calibration_cache(self, cache: memoryview) -> None:
            del cache

    calibrator = Calibrator()
    config.set_flag(trt.BuilderFlag.INT8)
    config.set_flag(trt.BuilderFlag.FP16)
    config.int8_calibrator = calibrator
    if free_batch is not None:
        config.set_calibration_profile(free_batch)
    return calibrator


def under_version(cache: bytes, version: str) -> bytes:
    """Return a calibration cache as a TensorRT of that version would have written it.

    Args:
        cache: Of any version.
        version: E.g. "10.3.0"; what follows the third number does not count.

    Raises:
        BundleError: Not an entropy calibration cache.
    """
    header = _HEADER.match(cache)
    if header is None:
        raise BundleError(
            "not a TensorRT calibration cache: expected a first line like "
            f"'TRT-100300-EntropyCalibration2', found {cache[:40]!r}"
        )
    major, minor, patch = (int(part) for part in version.split(".")[:3])
    number = 10_000 * major + 100 * minor + patch
    return b"TRT-%d-EntropyCalibration2\n" % number + cache[header.end() :]
