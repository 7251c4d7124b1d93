"""Golden samples: does this machine compute what the machine that exported computed?"""

from __future__ import annotations

from typing import Final, Literal

import msgspec
import numpy as np
import PIL

from ..bundle import Bundle
from ..bundle.manifest import GoldenSample
from ..core.errors import BundleError, ImageError
from ..core.values import Logits, Pixels, Precision, relative_difference
from ..targets import get_target
from ..targets.target import BackendName
from .predictor import Predictor
from .preprocess import pixels_from_png, to_pixels

_LOSSLESS: Final = (".png", ".bmp", ".gif", ".ppm", ".pgm", ".pbm")


class SampleResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a golden sample here.

    Attributes:
        sample: The image's name in the bundle.
        state: "warning" where another decoder moved a pixel by one code.
        pixel_codes: Largest difference of a pixel, in codes; None where the image gave none.
        logits: max|a-b| / max|a| of the logits for the stored pixels.
        limit: The largest that is allowed for this target and precision.
        step: Which step differs: "decode or resize", "resize", "inference"; None where none does.
        message: What was expected and found; empty where all is well.
    """

    sample: str
    state: Literal["passed", "warning", "failed"]
    pixel_codes: int | None
    logits: float
    limit: float
    step: str | None = None
    message: str = ""


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a bundle here.

    Attributes:
        backend: What ran it.
        precision: Of what ran.
        artefact: The file that ran.
        description: Of the backend: library, version, device.
        fell_back: Why it is a simulation, else None.
        problem: What is wrong with this machine though the answers are right, else None.
        samples: One result for each golden sample.
    """

    backend: BackendName
    precision: Precision
    artefact: str
    description: dict[str, str]
    fell_back: str | None
    problem: str | None
    samples: tuple[SampleResult, ...]

    @property
    def passed(self) -> bool:
        """Whether no sample failed, and nothing is wrong with this machine."""
        return self.problem is None and all(sample.state != "failed" for sample in self.samples)


def verify(predictor: Predictor) -> Verification:
    """Check every hash of a loaded bundle, then recompute its golden samples.

    The image must become the stored pixels, and the stored pixels the stored logits: so that the
    step that differs is known.

    Raises:
        BundleError: A file is damaged, or there are no golden samples.
    """
    bundle = predictor.bundle
    bundle.verify()
    if not bundle.manifest.golden:
        raise BundleError(f"{bundle.path}: it has no golden samples; export the bundle again")
    return Verification(
        backend=predictor.backend,
        precision=predictor.precision,
        artefact=predictor.artefact.path,
        description=dict(predictor.description),
        fell_back=predictor.fell_back,
        problem=predictor.problem,
        samples=tuple(_check(bundle, predictor, sample) for sample in bundle.manifest.golden),
    )


def _check(bundle: Bundle, predictor: Predictor, sample: GoldenSample) -> SampleResult:
    stored = pixels_from_png(bundle.read(sample.pixels))
    expected = _stored_logits(bundle, predictor, sample)
    difference = relative_difference(expected, predictor.logits(stored[None])[0])
    limit = get_target(bundle.manifest.target).tolerances[predictor.precision].logits
    codes, step, message = _compare_pixels(bundle, predictor, sample, stored)
    state: Literal["passed", "warning", "failed"] = "passed"
    if message:
        state = "warning" if codes == 1 else "failed"
    if not difference <= limit:
        state, step = "failed", step if state == "failed" else "inference"
        found = (
            f"logits differ by {difference:.3g} of the largest, at most {limit:g} is allowed for "
            f"{predictor.precision} on {bundle.manifest.target}"
        )
        message = f"{message}; {found}" if message else found
    return SampleResult(
        sample=sample.image,
        state=state,
        pixel_codes=codes,
        logits=difference,
        limit=limit,
        step=step,
        message=message,
    )


def _compare_pixels(
    bundle: Bundle, predictor: Predictor, sample: GoldenSample, stored: Pixels
) -> tuple[int | None, str | None, str]:
    """Return the largest difference in codes, the step that caused it, and what to say."""
    step = "resize" if sample.image.lower().endswith(_LOSSLESS) else "decode or resize"
    preprocess = bundle.manifest.preprocess
    try:
        found = to_pixels(bundle.read(sample.image), preprocess, size=predictor.input_size)
    except ImageError as error:
        return None, step, f"expected an image that can be read: {error.reason}"
    if found.shape != stored.shape:
        return None, step, f"expected pixels of shape {stored.shape}, found {found.shape}"
    codes = int(np.abs(found.astype(np.int16) - stored).max(initial=0))
    if codes == 0:
        return 0, None, ""
    count = int((found != stored).sum())
    there = bundle.manifest.tools.get("pillow", "of unknown version")
    return (
        codes,
        step,
        f"{count} of {found.size} pixel codes differ by up to {codes}: exported with Pillow "
        f"{there}, read here with Pillow {PIL.__version__}",
    )


def _stored_logits(bundle: Bundle, predictor: Predictor, sample: GoldenSample) -> Logits:
    name = sample.logits.get(predictor.artefact.path)
    if name is None:
        raise BundleError(
            f"{bundle.path}: {sample.image} has no logits of {predictor.artefact.path}; "
            "export the bundle again"
        )
    data = bundle.read(name)
    classes = bundle.manifest.num_classes
    if len(data) != 4 * classes:
        raise BundleError(f"{bundle.path}: {name} holds {len(data)} bytes, expected {4 * classes}")
    return np.frombuffer(data, "<f4").astype(np.float32)
