"""Images that judge many graphs: decoded once, kept as pixels, answered graph by graph."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import onnx

from ...core.errors import DataError
from ...core.preprocess import Preprocess
from ...core.progress import Progress
from ...core.values import Logits, Pixels
from ...data.images import ImageFile
from ...data.stream import stream_pixels
from ...data.truth import Truth
from ...drift.candidates import Record, record
from ..graph import OnnxRunner

_BATCH: Final = 8
_MAX_LANES: Final = 8
_FEWEST: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Judging:
    """Images, and what the float graph answers to them.

    Attributes:
        names: Of the images.
        hashes: The SHA-256 of each image's file.
        pixels: Shape (N, H, W, C), uint8: a quarter of what tensors would take.
        preprocess: What makes tensors of them.
        expected: The float graph's logits, shape (N, classes).
        truth: The right classes; without ground truth the float graph's answers.
        graded: Whether there is ground truth.
        overlap: How many images were left out because they had calibrated.
        unreadable: How many could not be read.
    """

    names: tuple[str, ...]
    hashes: tuple[str, ...]
    pixels: Pixels
    preprocess: Preprocess
    expected: Logits
    truth: np.typing.NDArray[np.int64]
    graded: bool
    overlap: int
    unreadable: int

    @property
    def float_right(self) -> int:
        """How many answers of the float graph are right."""
        return int((self.expected.argmax(1) == self.truth).sum())

    def answer(self, model: onnx.ModelProto) -> Logits:
        """Return a graph's logits, shape (N, classes): the same on any number of cores."""
        return _answer(model, self.pixels, self.preprocess)

    def record(self, found: Logits) -> Record:
        """Return what a graph's logits contribute to each measure."""
        truth = self.truth if self.graded else None
        return record(self.names, self.expected, found, truth)

    def noise(self, found: Logits) -> float:
        """Return the noise in a graph's logits over the float graph's power."""
        expected = self.expected.astype(np.float64)
        return float(((found - expected) ** 2).sum() / (expected**2).sum())

    def some(self, count: int) -> Judging:
        """Return some of the images alone, from all over the set."""
        places = spread_out(len(self.names), count)
        return replace(
            self, names=tuple(self.names[place] for place in places),
            hashes=tuple(self.hashes[place] for place in places), pixels=self.pixels[places],
            expected=self.expected[places], truth=self.truth[places],
        )  # fmt: skip

    def drop(self, found: Logits) -> float:
        """Return the points of top-1 that a graph lost on these images; negative where it gained.

        Without ground truth: the points of answers that changed.
        """
        right = int((found.argmax(1) == self.truth).sum())
        return 100 * (self.float_right - right) / len(self.names)


def spread_out(total: int, count: int) -> list[int]:
    """Return ``count`` places of ``total``, or all, evenly apart.

    Images are sorted by name, so by class: the first of them would be those of a few classes.
    """
    count = min(total, count)
    return [place * total // count for place in range(count)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Images that may judge, decoded; attributes as of ``Judging``."""

    images: tuple[ImageFile, ...]
    hashes: tuple[str, ...]
    pixels: Pixels
    overlap: int
    unreadable: int


def read_pixels(
    images: Sequence[ImageFile],
    preprocess: Preprocess,
    *,
    size: tuple[int, int],
    known: frozenset[str],
    option: str,
    progress: Progress,
) -> Kept:
    """Decode images.

    Args:
        images: All that may judge.
        preprocess: What images go through.
        size: (height, width) of the model's input.
        known: Hashes of images that took part in making what is judged: they are left out.
        option: What named the images, for messages.
        progress: Shows how many are done.

    Raises:
        DataError: Fewer than two images are left.
        ImageError: The preprocessing leaves images at sizes of their own, and they differ.
    """
    kept: list[ImageFile] = []
    hashes: list[str] = []
    parts: list[Pixels] = []
    overlap = unreadable = 0
    stream = stream_pixels(images, preprocess, size=size, batch=_BATCH)
    for batch in progress.track(stream, "reading images", -(-len(images) // _BATCH)):
        unreadable += len(batch.errors)
        for image, error in batch.errors:
            progress.note(f"{option} left out {image.name}: {error.reason}")
        places = [place for place, digest in enumerate(batch.hashes) if digest not in known]
        overlap += len(batch.hashes) - len(places)
        if places:
            kept += [batch.images[place] for place in places]
            hashes += [batch.hashes[place] for place in places]
            parts.append(batch.stack()[places])
    if overlap:
        progress.note(f"{overlap} images of {option} have calibrated or tuned: left out")
    if len(kept) < _FEWEST:
        raise DataError(
            f"of {len(images)} images {len(kept)} are left to judge, expected {_FEWEST} or more: "
            f"{overlap} have calibrated or tuned, {unreadable} cannot be read; give {option} other "
            "images"
        )
    return Kept(
        images=tuple(kept),
        hashes=tuple(hashes),
        pixels=np.concatenate(parts),
        overlap=overlap,
        unreadable=unreadable,
    )


def read_judging(
    images: Sequence[ImageFile],
    model: onnx.ModelProto,
    *,
    preprocess: Preprocess,
    size: tuple[int, int],
    known: frozenset[str],
    truth: Truth | None,
    option: str,
    progress: Progress,
) -> Judging:
    """Decode images, and ask the float graph.

    Args:
        images: As ``read_pixels``, as all that is not here.
        model: The float graph.
        preprocess: As there.
        size: As there.
        known: As there.
        truth: The right classes; None takes the float graph's answers.
        option: As there.
        progress: As there.

    Raises:
        DataError, ImageError: As there.
    """
    kept = read_pixels(images, preprocess, size=size, known=known, option=option, progress=progress)
    expected = _answer(model, kept.pixels, preprocess)
    return Judging(
        names=tuple(image.name for image in kept.images),
        hashes=kept.hashes,
        pixels=kept.pixels,
        preprocess=preprocess,
        expected=expected,
        truth=expected.argmax(1) if truth is None else truth.of(kept.images),
        graded=truth is not None,
        overlap=kept.overlap,
        unreadable=kept.unreadable,
    )


def _answer(model: onnx.ModelProto, pixels: Pixels, preprocess: Preprocess) -> Logits:
    # One thread each, several batches at once: unoptimised graphs gain little from more.
    runner = OnnxRunner(model, threads=1)
    starts = range(0, len(pixels), _BATCH)
    with ThreadPoolExecutor(min(len(os.sched_getaffinity(0)), _MAX_LANES)) as pool:
        parts = pool.map(
            lambda start: runner(preprocess.normalize(pixels[start : start + _BATCH])), starts
        )
        return np.concatenate(list(parts))
