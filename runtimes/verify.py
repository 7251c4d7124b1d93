"""Golden samples: does this machine compute what the machine that exported computed?"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec
import numpy as np
import PIL

from ..bundle import Bundle
from ..bundle.manifest import GoldenSample
from ..core.errors import BundleError, ImageError
from ..core.preprocess import PixelStep
from ..core.values import Logits, Pixels, Precision, relative_difference
from ..core.version import VERSION
from ..targets import get_target
from ..targets.target import BackendName
from .predictor import Predictor
from .preprocess import pixels_from_png, to_pixels
from .steps import StepHashes, array_sha256

_LOSSLESS: Final = (".png", ".bmp", ".gif", ".ppm", ".pgm", ".pbm")

Step: TypeAlias = Literal[PixelStep, "normalise", "model", "decode or resize", "inference"]
"""What can differ; the last two in bundles of older versions, without the hashes of steps."""


class SampleResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a golden sample here.

    Attributes:
        sample: The image's name in the bundle.
        state: "warning" where another decoder moved a pixel by one code.
        pixel_codes: Largest difference of a pixel, in codes; None where the image gave none.
        logits: max|a-b| / max|a| of the logits for the stored pixels.
        limit: The largest that is allowed for this target and precision.
        step: The first step that gave something else than at export; None where none did.
        message: What was expected and found; empty where all is well.
    """

    sample: str
    state: Literal["passed", "warning", "failed"]
    pixel_codes: int | None
    logits: float
    limit: float
    step: Step | None = None
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

    The image must become the stored pixels, and the stored pixels the stored logits. Where one
    does not, the hash of what each step gave says which step is the first to differ.

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
        behind, why = _behind_pixels(bundle, predictor, sample, stored)
        state, step = "failed", step if state == "failed" else behind
        found = (
            f"logits differ by {difference:.3g} of the largest, at most {limit:g} is allowed for "
            f"{predictor.precision} on {bundle.manifest.target}{why}"
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
) -> tuple[int | None, Step | None, str]:
    """Return the largest difference in codes, the step that caused it, and what to say."""
    watch = StepHashes()
    preprocess = bundle.manifest.preprocess
    try:
        found = to_pixels(
            bundle.read(sample.image), preprocess, size=predictor.input_size, watch=watch
        )
    except ImageError as error:
        step = _pixel_step(sample, watch)
        return None, step, f"expected an image that can be used: {error.reason}"
    if found.shape != stored.shape:
        step = _pixel_step(sample, watch)
        return None, step, f"expected pixels of shape {stored.shape}, found {found.shape}"
    codes = int(np.abs(found.astype(np.int16) - stored).max(initial=0))
    if codes == 0:
        return 0, None, ""
    count = int((found != stored).sum())
    there = bundle.manifest.tools.get("pillow", "of unknown version")
    return (
        codes,
        _pixel_step(sample, watch),
        f"{count} of {found.size} pixel codes differ by up to {codes}: exported with Pillow "
        f"{there}, read here with Pillow {PIL.__version__}",
    )


def _pixel_step(sample: GoldenSample, watch: StepHashes) -> Step:
    """Return the first step whose hash differs, or what an older bundle lets one guess."""
    if sample.steps:
        # No step differs where this decoder reads the stored pixels, a PNG, otherwise.
        return watch.first_difference(sample.steps) or "decode"
    return "resize" if sample.image.lower().endswith(_LOSSLESS) else "decode or resize"


def _behind_pixels(
    bundle: Bundle, predictor: Predictor, sample: GoldenSample, stored: Pixels
) -> tuple[Step, str]:
    """Return which step makes other logits of the stored pixels, and what to say about it."""
    expected = sample.tensors.get(predictor.artefact.path)
    if expected is None:
        return "inference", ""
    if array_sha256(predictor.tensors(stored[None])[0]) != expected:
        there = bundle.manifest.tools.get("edgecls", "of unknown version")
        return "normalise", (
            f"; the model is fed other values: exported with edgecls {there}, here is {VERSION} "
            f"with numpy {np.__version__}"
        )
    runs_on = ", ".join(f"{key} {value}" for key, value in predictor.description.items())
    return "model", f"; the model is fed the right values, {predictor.backend} ({runs_on}) differs"


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
