"""A bundle against its reference on the same images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from ..core.errors import DataError, ImageError
from ..core.progress import Progress
from ..core.values import Logits, Pixels
from ..data.images import ImageFile, list_images, select_images
from ..data.labels import Labels
from ..data.stream import Batch, stream_pixels
from ..data.truth import match_truth
from ..drift.gate import check_budget, judge
from ..drift.metrics import Comparison
from ..drift.report import DriftReport, Skipped
from ..runtimes import Predictor
from ..runtimes.preprocess import to_pixels
from .graph import is_probabilities, log_softmax
from .references import Source, open_reference

BATCH: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftOptions:
    """What to compare.

    Attributes:
        reference: A bundle's path or a model source.
        data: A folder of images.
        truth: Ground truth; without it folders are matched with the bundle's classes.
        weights: Of a reference that is a model.
        num_classes: Likewise.
        preprocess: Likewise; the bundle's where it is None.
        images: How many of the images; None is all.
        seed: Chooses them.
        max_drop: Budget of the top-1 drop, in points.
        min_agreement: The smallest top-1 agreement, in percent, where it is given.
    """

    reference: str
    data: Path
    truth: Path | None = None
    weights: Path | None = None
    num_classes: int | None = None
    preprocess: str | None = None
    images: int | None = None
    seed: int = 0
    max_drop: float = 1.0
    min_agreement: float | None = None


def drift(predictor: Predictor, options: DriftOptions, progress: Progress) -> DriftReport:
    """Run both on every image and judge the difference.

    Images that cannot be read are left out and listed.

    Raises:
        DataError: There is no readable image, or the truth does not fit.
        UsageError: There is nothing to judge by.
    """
    manifest = predictor.bundle.manifest
    every = list_images(options.data)
    labels = None
    if manifest.labels is not None:
        labels = Labels(names=manifest.labels, synsets=manifest.synsets)
    truth = match_truth(every, num_classes=manifest.num_classes, labels=labels, truth=options.truth)
    if truth is not None:
        progress.note(truth.how)
    check_budget(options.max_drop, options.min_agreement, has_truth=truth is not None)
    reference = open_reference(
        options.reference,
        weights=options.weights,
        num_classes=options.num_classes,
        preprocess=options.preprocess,
        candidate=manifest.preprocess,
    )
    images = select_images(every, options.images, options.seed)
    comparison = Comparison()
    skipped: list[Skipped] = []
    stream = stream_pixels(images, manifest.preprocess, size=predictor.input_size, batch=BATCH)
    total = -(-len(images) // BATCH)
    for batch in progress.track(stream, "comparing", total):
        skipped += [Skipped(image=image.name, reason=error.reason) for image, error in batch.errors]
        if not batch.images:
            continue
        pixels = batch.stack()
        theirs = _pixels_for(reference, predictor, batch, pixels)
        expected, found = reference.logits(theirs), predictor.logits(pixels)
        if expected.shape != found.shape:
            raise DataError(
                f"the reference has {expected.shape[1]} outputs, the bundle {found.shape[1]}; "
                "compare a bundle with the model that it was made from"
            )
        expected, found = _alike(expected, found)
        names = [image.name for image in batch.images]
        comparison.add(names, expected, found, truth.of(batch.images) if truth else None)
    if len(skipped) == len(images):
        raise DataError(f"none of {len(images)} images can be read, e.g. {skipped[0].reason}")
    metrics = comparison.result()
    return DriftReport(
        reference=options.reference,
        candidate=str(predictor.bundle.path),
        backends={"reference": reference.backend, "candidate": predictor.backend},
        truth=truth.how if truth else None,
        metrics=metrics,
        verdict=judge(metrics, max_drop=options.max_drop, min_agreement=options.min_agreement),
        skipped=tuple(skipped),
        labels=manifest.labels,
    )


def _alike(expected: Logits, found: Logits) -> tuple[Logits, Logits]:
    """Return both as log-probabilities where the reference gives probabilities or these."""
    if is_probabilities(expected):
        smallest = np.finfo(np.float32).tiny
        return np.log(np.maximum(expected, smallest)), log_softmax(found)
    if (expected <= 0).all() and is_probabilities(np.exp(expected)):
        return expected, log_softmax(found)
    return expected, found


def _pixels_for(reference: Source, predictor: Predictor, batch: Batch, pixels: Pixels) -> Pixels:
    """Return the reference's pixels: the candidate's where both prepare images alike."""
    same = reference.preprocess == predictor.bundle.manifest.preprocess
    if same and reference.size == predictor.input_size:
        return pixels
    return np.stack([_read(image, reference) for image in batch.images])


def _read(image: ImageFile, reference: Source) -> Pixels:
    try:
        return to_pixels(image.path, reference.preprocess, size=reference.size)
    except ImageError as error:
        raise DataError(f"the reference cannot take {image.name}: {error.reason}") from error
