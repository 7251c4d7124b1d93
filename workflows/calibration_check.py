"""The calibration set's doctor: says what is wrong with the images, and what to do."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..calibration.collect import observe
from ..calibration.doctor import Extremes, convergence, seed_spread, widths_without
from ..core.errors import CalibrationError, DataError, ImageError
from ..core.preprocess import Preprocess
from ..core.progress import Progress
from ..core.values import Logits, Tensor
from ..data.images import ImageFile, list_images
from ..data.likeness import SAME, likest, thumbnail
from ..data.stream import stream_pixels
from .calibrate import CalibrateOptions, calibration_images, float_model

FEWEST_IMAGES: Final = 32
# Of a range's width: what a single image may hold alone, in at most a tenth of the tensors.
DOMINATES: Final = 0.2
# By which the second half of the images may widen the ranges, the mean over the tensors.
GROWTH: Final = 0.08
# By which a seed may change the width of the median tensor.
SPREAD: Final = 0.25
# A class has too many images with more than 3 times its even share and a fifth of all, too few
# with less than a third of it; and only where chance gives that once in a thousand sets.
_UNEVEN: Final = 3.0
_LARGE: Final = 0.2
_CHANCE: Final = 1e-3


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is wrong.

    Attributes:
        kind: Its name, for scripts.
        found: What is there, with numbers and names.
        fix: What to do.
    """

    kind: str
    found: str
    fix: str


class Checkup(msgspec.Struct, frozen=True, kw_only=True):
    """What was looked at and what was found.

    Attributes:
        images: How many images were observed.
        tensors: How many tensors.
        growth: Expected growth of the ranges by the second half of the images, 0..1.
        enough: About how many images would be enough; None where that cannot be said.
        seed_spread: By what share a seed changes the width of the median tensor.
        against: How many evaluation images were compared; None without any.
        findings: Empty for a good set.
    """

    images: int
    tensors: int
    growth: float
    enough: int | None
    seed_spread: float
    against: int | None
    findings: tuple[Finding, ...]


def check_calibration(
    options: CalibrateOptions, against: Path | None, progress: Progress
) -> Checkup:
    """Observe a model on the images that a calibration would take, and judge them.

    Args:
        options: As for a calibration; nothing is written.
        against: The images that the model will be judged on.
        progress: Shows how many are done.

    Raises:
        EdgeclsError: The model or the images cannot be used at all.
    """
    chosen = calibration_images(options, progress)
    model = float_model(options, chosen, progress)
    seen = _Seen(chosen, model.preprocess, model.size, progress)
    answers: Counter[int] = Counter()

    def on_logits(logits: Logits) -> None:
        answers[int(logits[0].argmax())] += 1
        seen.classes = logits.shape[1]

    observe(model.graph, seen.tensors(), on_logits=on_logits, on_extremes=seen.take)
    extremes = seen.extremes()
    folders = sorted({image.folder for image in list_images(options.data)})
    by_folder = Counter(image.folder for image in seen.images)
    grown = convergence(extremes, GROWTH)
    spread = float(np.median(seed_spread(extremes, options.seed)))
    findings = [
        *_too_few(len(seen.images)),
        *_unbalanced("folder", {name: by_folder[name] for name in folders}),
        *_unbalanced("model's answer", {str(i): answers[i] for i in range(seen.classes)}),
        *_unreadable(seen.failed),
        *_duplicates(seen),
        *_dominated(extremes, seen.names),
        *_unconverged(grown.growth, grown.enough),
        *_seed(spread),
    ]
    compared = None
    if against is not None:
        leaks, compared = _leaks(seen, against, model.preprocess, model.size, progress)
        findings += leaks
    return Checkup(
        images=len(seen.images),
        tensors=extremes.lo.shape[1],
        growth=grown.growth,
        enough=grown.enough,
        seed_spread=spread,
        against=compared,
        findings=tuple(findings),
    )


class _Seen:
    """Keeps what the judgement needs of each image: its hash, its thumbnail, its extremes."""

    def __init__(
        self,
        chosen: Sequence[ImageFile],
        preprocess: Preprocess,
        size: tuple[int, int],
        progress: Progress,
    ) -> None:
        self._chosen = chosen
        self._preprocess = preprocess
        self._size = size
        self._progress = progress
        self._rows: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
        self.images: list[ImageFile] = []
        self.hashes: list[str] = []
        self.thumbnails: list[NDArray[np.float32]] = []
        self.failed: list[ImageError] = []
        self.classes = 0

    @property
    def names(self) -> dict[str, str]:
        """An image's name by its hash."""
        return {digest: image.name for digest, image in zip(self.hashes, self.images, strict=True)}

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield what is observed.

        Raises:
            CalibrationError: None of the images can be read.
        """
        stream = stream_pixels(self._chosen, self._preprocess, size=self._size)
        for batch in self._progress.track(stream, "checking", len(self._chosen)):
            self.failed += [error for _, error in batch.errors]
            for image, digest, pixels in zip(batch.images, batch.hashes, batch.pixels, strict=True):
                self.images.append(image)
                self.hashes.append(digest)
                self.thumbnails.append(thumbnail(pixels))
                yield digest, self._preprocess.normalize(pixels[None])
        if not self.images:
            raise CalibrationError(
                f"none of {len(self._chosen)} images can be read, e.g. {self.failed[0]}"
            )

    def take(self, image: str, lo: NDArray[np.float32], hi: NDArray[np.float32]) -> None:
        """Take an image's extremes; copies of a file have the same."""
        self._rows[image] = (lo, hi)

    def extremes(self) -> Extremes:
        """Return those of every image, sorted by hash: copies count once each."""
        images = tuple(sorted(self.hashes))
        return Extremes(
            images=images,
            lo=np.minimum([self._rows[image][0] for image in images], 0.0).astype(np.float64),
            hi=np.maximum([self._rows[image][1] for image in images], 0.0).astype(np.float64),
        )


def _too_few(images: int) -> Iterator[Finding]:
    if images < FEWEST_IMAGES:
        yield Finding(
            kind="too-few-images",
            found=f"{images} images",
            fix=f"take {FEWEST_IMAGES} at the very least, 100 or more are usual",
        )


def _unbalanced(what: str, counts: dict[str, int]) -> Iterator[Finding]:
    total, classes = sum(counts.values()), len(counts)
    if classes < 2:
        return
    even = total / classes
    most = max(counts, key=lambda name: counts[name])
    if counts[most] > max(_UNEVEN * even, _LARGE * total) or (
        classes < _UNEVEN and counts[most] > total * (1 - 0.5 / _UNEVEN)
    ):
        yield Finding(
            kind="unbalanced-classes",
            found=f"{counts[most]} of {total} images have the {what} {most!r}, an even share would "
            f"be {even:.1f}",
            fix="take about as many images of each class",
        )
    # A third of an even share or less, and less than chance would give any of the classes.
    scarce = [
        name
        for name, count in counts.items()
        if count < even / _UNEVEN and _poisson_below(count, even) < _CHANCE / classes
    ]
    if scarce:
        named = ", ".join(f"{name!r} ({counts[name]})" for name in scarce[:5])
        yield Finding(
            kind="unbalanced-classes",
            found=f"few or no images of {len(scarce)} classes by {what}, an even share would be "
            f"{even:.1f}: {named}{', ...' if len(scarce) > 5 else ''}",
            fix="add images of these classes",
        )


def _poisson_below(count: int, mean: float) -> float:
    """Return the probability of at most ``count`` where ``mean`` is expected."""
    return math.fsum(
        math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(count + 1)
    )


def _unreadable(failed: Sequence[ImageError]) -> Iterator[Finding]:
    if failed:
        yield Finding(
            kind="unreadable-images",
            found=f"{len(failed)} images cannot be read, e.g. {failed[0]}",
            fix="remove or replace them",
        )


def _duplicates(seen: _Seen) -> Iterator[Finding]:
    known = np.array(seen.thumbnails)
    products = known @ known.T
    np.fill_diagonal(products, 0.0)
    copies = Counter(seen.hashes)
    pairs = {
        (row, column) for row, column in zip(*np.nonzero(np.triu(products) >= SAME), strict=True)
    } | {
        (row, column)
        for row, digest in enumerate(seen.hashes)
        if copies[digest] > 1
        for column in range(row + 1, len(seen.hashes))
        if seen.hashes[column] == digest
    }
    alike = {int(column) for _, column in pairs}
    if alike:
        row, column = min(pairs)
        yield Finding(
            kind="duplicates",
            found=f"{len(alike)} of {len(seen.images)} images show what another one shows, e.g. "
            f"{seen.images[column].name} and {seen.images[row].name}",
            fix="replace them: a copy adds nothing to the ranges",
        )


def _dominated(extremes: Extremes, names: dict[str, str]) -> Iterator[Finding]:
    shares = widths_without(extremes)
    held = (shares > DOMINATES).sum(axis=1)
    few = max(2, extremes.lo.shape[1] // 10)
    for row in np.argsort(-held, kind="stable")[:3]:
        if held[row] > few:
            yield Finding(
                kind="dominating-image",
                found=f"{names[extremes.images[row]]} alone widens {held[row]} of "
                f"{shares.shape[1]} ranges by more than {100 * DOMINATES:.0f} %, one by "
                f"{100 * shares[row].max():.0f} %",
                fix="look at it: remove it if it is not like what the device will see, else add "
                "more like it or use --method percentile",
            )


def _unconverged(growth: float, enough: int | None) -> Iterator[Finding]:
    if growth > GROWTH:
        yield Finding(
            kind="not-converged",
            found=f"the second half of the images widened the ranges by {100 * growth:.0f} % of "
            "their width, and more images would widen them further",
            fix=f"take about {enough} images"
            if enough is not None
            else "growth does not slow down: take many more images, or --method percentile",
        )


def _seed(spread: float) -> Iterator[Finding]:
    if spread > SPREAD:
        yield Finding(
            kind="seed-sensitive",
            found=f"over random halves of the images the width of the median range varies by "
            f"{100 * spread:.0f} %",
            fix="take more images, so that the choice among them matters less",
        )


def _leaks(
    seen: _Seen, against: Path, preprocess: Preprocess, size: tuple[int, int], progress: Progress
) -> tuple[list[Finding], int]:
    judged = list_images(against)
    known, hashes = np.array(seen.thumbnails), set(seen.hashes)
    exact: list[str] = []
    near: list[str] = []
    compared = 0
    stream = stream_pixels(judged, preprocess, size=size)
    for batch in progress.track(stream, "comparing", len(judged)):
        for image, error in batch.errors:
            progress.note(f"not compared: {image.name}: {error.reason}")
        for image, digest, pixels in zip(batch.images, batch.hashes, batch.pixels, strict=True):
            compared += 1
            index, likeness = likest(thumbnail(pixels)[None], known)
            if digest in hashes:
                exact.append(image.name)
            elif likeness[0] >= SAME:
                near.append(f"{image.name} (like {seen.images[int(index[0])].name})")
    if not compared:
        raise DataError(f"none of {len(judged)} images of {against} can be read")
    findings = [
        Finding(
            kind="leakage",
            found=f"{len(names)} of {compared} evaluation images are {what}, e.g. {names[0]}",
            fix="calibrate on other images: what the ranges have seen cannot judge them",
        )
        for names, what in (
            (exact, "calibration images"),
            (near, "near-duplicates of calibration images"),
        )
        if names
    ]
    return findings, compared
