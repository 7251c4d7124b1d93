"""The model card: what ``GET /v1/model`` says of the bundle that answers."""

from __future__ import annotations

import msgspec

from ..bundle.manifest import CalibrationInfo, ModelInfo
from ..core.preprocess import Preprocess
from ..core.values import Precision
from ..core.version import VERSION
from .model import Model
from .settings import Settings


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a request may be.

    Attributes:
        upload_bytes: Of its body.
        image_pixels: Of each image.
        images: In one request.
        images_at_once: That the model runs together; 1 where it takes one after the other.
        timeout_s: For the body, and for the answer.
    """

    upload_bytes: int
    image_pixels: int
    images: int
    images_at_once: int
    timeout_s: float


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """What answers.

    Attributes:
        name: The model, in a word: how the Open Inference Protocol calls it.
        bundle_sha256: Hash of the bundle's manifest: which bundle it is.
        target: What it was exported for.
        precision: Of the arithmetic.
        backend: What runs it here.
        runs_on: Of the backend: library, version, device.
        fell_back: Why it is a simulation on this machine, else None.
        problem: What is wrong with this machine though the answers are right, else None.
        model: Where the network comes from.
        preprocess: What becomes of an image before it.
        calibration: Which images gave the ranges; None where nothing was calibrated.
        num_classes: How many classes it tells apart.
        labels: Their names, in the order of the outputs; None where the bundle has none.
        tools: The versions that exported it.
        edgecls: The version that serves it.
        limits: What a request may be.
    """

    name: str
    bundle_sha256: str
    target: str
    precision: Precision
    backend: str
    runs_on: dict[str, str]
    fell_back: str | None
    problem: str | None
    model: ModelInfo
    preprocess: Preprocess
    calibration: CalibrationInfo | None
    num_classes: int
    labels: tuple[str, ...] | None
    tools: dict[str, str]
    edgecls: str
    limits: Limits


def model_card(model: Model, settings: Settings) -> ModelCard:
    """Return the card of what answers now."""
    predictor, manifest = model.predictor, model.predictor.bundle.manifest
    return ModelCard(
        name=model_name(model),
        bundle_sha256=model.sha256,
        target=manifest.target,
        precision=predictor.precision,
        backend=predictor.backend,
        runs_on=dict(predictor.description),
        fell_back=predictor.fell_back,
        problem=predictor.problem,
        model=manifest.model,
        preprocess=manifest.preprocess,
        calibration=manifest.calibration,
        num_classes=manifest.num_classes,
        labels=manifest.labels,
        tools=manifest.tools,
        edgecls=VERSION,
        limits=Limits(
            upload_bytes=settings.max_upload_bytes,
            image_pixels=settings.max_pixels,
            images=settings.max_images,
            images_at_once=images_at_once(model, settings),
            timeout_s=settings.timeout_s,
        ),
    )


def images_at_once(model: Model, settings: Settings) -> int:
    """Return how many images the model runs together on this server."""
    return min(settings.max_batch, model.predictor.max_batch or settings.max_batch)


def model_name(model: Model) -> str:
    """Return the model's source in letters that a path takes: "timm:resnet18" is "resnet18"."""
    source = model.predictor.bundle.manifest.model.source
    last = source.replace("\\", "/").rpartition("/")[2].rpartition(":")[2]
    kept = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in last)
    return kept.encode("ascii", "replace").decode().replace("?", "-").strip(".-") or "model"
