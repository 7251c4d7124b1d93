"""What a candidate is explained against: a model, a bundle, or answers that were kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from ...core.errors import DataError, UsageError
from ...core.files import sha256_file
from ...core.preprocess import Preprocess, resolve_preprocess
from ...data.images import ImageFile
from ...data.labels import Labels
from ...drift.answers import Indices
from ...drift.baseline import read_baseline
from ...models import LoadedModel, load_model
from ..graph import resolve_input
from ..sources import Live, ModelOptions, Recorded, is_model, open_source
from .chain import UNKNOWN
from .images import find_names

_HASH_DIGITS: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model that was loaded.

    Attributes:
        name: As the user named it.
        loaded: The model.
        preprocess: What it expects.
        size: (height, width) in px.
        own: Whether the user or the model says what it expects; else it is the candidate's.
    """

    name: str
    loaded: LoadedModel
    preprocess: Preprocess
    size: tuple[int, int]
    own: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """Answers that were kept: of a file of logits, or a baseline.

    Attributes:
        name: As the user named it.
        how: What answered, for humans.
        preprocess: What its images went through.
        classes: Its outputs.
        labels: Their names, where known.
        bundle: The hash of the bundle that answered; None where it is not known.
        answers: Hash of the image's file, or its first 16 digits, and the class; by name.
    """

    name: str
    how: str
    preprocess: Preprocess
    classes: int
    labels: Labels | None
    bundle: str | None
    answers: dict[str, tuple[str, int]]

    def of(self, images: Sequence[ImageFile]) -> tuple[Indices, tuple[str, ...]]:
        """Find what was answered to images, by their content or else by their name.

        Returns:
            The classes, shape (N,), ``UNKNOWN`` where an image was not seen; and the names that the
            images had where their files differ now.
        """
        by_hash = {digest[:_HASH_DIGITS]: top1 for digest, top1 in self.answers.values()}
        names = find_names([image.name for image in images], list(self.answers))
        classes = np.full(len(images), UNKNOWN, np.int64)
        changed: list[str] = []
        for place, (image, name) in enumerate(zip(images, names, strict=True)):
            top1 = by_hash.get(sha256_file(image.path)[:_HASH_DIGITS])
            if top1 is not None:
                classes[place] = top1
            elif name is not None:
                classes[place] = self.answers[name][1]
                changed.append(name)
        if (classes == UNKNOWN).all():
            raise DataError(
                f"{self.name} knows none of {len(images)} images, neither by content nor by name; "
                f"it knows {next(iter(self.answers))!r}"
            )
        return classes, tuple(changed)


Reference = Model | Past | Live


def open_reference(
    name: str | None, baseline: Path | None, options: ModelOptions, *, preprocess: Preprocess
) -> Reference:
    """Open what the user named.

    Args:
        name: A bundle's path, a file of logits, or a model source; or
        baseline: a file that ``--save-baseline`` wrote.
        options: For a model.
        preprocess: The candidate's, for a model that does not say what it expects.

    Raises:
        UsageError: Neither or both are given, or a model has random weights.
        EdgeclsError: It cannot be opened.
    """
    if (name is None) == (baseline is None):
        raise UsageError("give --reference or --baseline, one of them")
    if baseline is not None:
        return _from_baseline(baseline)
    assert name is not None
    if is_model(name):
        return _open_model(name, options, preprocess)
    source = open_source(name, options)
    return _from_recording(source) if isinstance(source, Recorded) else source


def _open_model(name: str, options: ModelOptions, preprocess: Preprocess) -> Model:
    loaded = load_model(name, weights=options.weights, num_classes=options.num_classes)
    if loaded.random_weights:
        raise UsageError(f"{name} has random weights: nothing is downloaded; give --weights FILE")
    given = resolve_preprocess(options.preprocess) if options.preprocess else loaded.preprocess
    chosen, size = resolve_input(loaded, given or preprocess)
    return Model(name=name, loaded=loaded, preprocess=chosen, size=size, own=given is not None)


def _from_recording(source: Recorded) -> Past:
    header = source.file.header
    answers = {
        name: (sha256, int(source.file.logits([sha256]).argmax()))
        for name, sha256 in source.file.images
    }
    return Past(
        name=source.name,
        how=f"{header.target} {header.precision} on {header.backend}",
        preprocess=header.preprocess,
        classes=header.classes,
        labels=source.labels,
        bundle=header.bundle_sha256,
        answers=answers,
    )


def _from_baseline(path: Path) -> Past:
    found = read_baseline(path)
    return Past(
        name=str(path),
        how=f"{found.model} on {found.backend}",
        preprocess=found.preprocess,
        classes=found.classes,
        labels=found.labels,
        bundle=None,
        answers={name: (kept.sha256, kept.top1) for name, kept in found.images.items()},
    )


def recorded_classes(source: Recorded, images: Sequence[ImageFile]) -> Indices:
    """Return what was answered to images, (N,), by their content; ``UNKNOWN`` where it was not."""
    digests = [sha256_file(image.path) for image in images]
    return np.asarray(
        [
            source.file.logits([digest]).argmax() if digest in source.file else UNKNOWN
            for digest in digests
        ],
        np.int64,
    )
