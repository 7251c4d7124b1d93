"""Several sources answer to the same images, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np

from ..core.errors import DataError, ImageError, UsageError
from ..core.files import sha256_file
from ..core.progress import Progress
from ..core.text import as_utf8
from ..core.values import Logits, Pixels
from ..data.images import ImageFile, list_images, select_images
from ..data.labels import Labels
from ..data.stream import Batch, stream_pixels
from ..data.truth import Truth, match_truth
from ..drift.report import Skipped
from ..runtimes.preprocess import to_pixels
from .sources import Live, Recorded, Source

BATCH: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class DataOptions:
    """Which images are answered to.

    Attributes:
        data: A folder of images; None where every source is recorded.
        truth: Ground truth; without it folders are matched with the first source's classes.
        images: How many of the images; None is all.
        seed: Chooses them.
    """

    data: Path | None = None
    truth: Path | None = None
    images: int | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """The chosen images, their classes where known, and the hashes that are known already."""

    images: tuple[ImageFile, ...]
    truth: Truth | None
    hashes: Mapping[str, str]
    skipped: tuple[Skipped, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A batch to which every source answered.

    Attributes:
        images: Those that all could take, N.
        hashes: SHA-256 of their files, where they were asked for or needed; else empty.
        logits: Of each source, shape (N, classes).
        skipped: The images that were left out.
    """

    images: tuple[ImageFile, ...]
    hashes: tuple[str, ...]
    logits: tuple[Logits, ...]
    skipped: tuple[Skipped, ...] = field(default=())


def gather(
    sources: Sequence[Source], options: DataOptions, progress: Progress, *,
    past: tuple[str, Labels | None] | None = None,
) -> DataSet:  # fmt: skip
    """Find the images and their classes, before any is run.

    Args:
        sources: Whom is asked.
        options: Which images.
        progress: Takes notes.
        past: A baseline that they are compared with: its name and its class names.

    Raises:
        DataError: There are none, the truth does not fit, or the sources' outputs or class names
            differ.
        UsageError: A source needs the images, and no folder was given.
    """
    first = sources[0]
    for other in sources[1:]:
        _check_outputs(first, other)
    named = [(source.name, source.labels) for source in sources]
    note = _check_labels(named if past is None else [*named, past])
    hashes: dict[str, str] = {}
    skipped: list[Skipped] = []
    if options.data is not None:
        every = list_images(options.data)
    elif isinstance(first, Recorded) and all(isinstance(s, Recorded) for s in sources):
        hashes, skipped = _recorded_images(first)
        every = tuple(ImageFile(path=Path(name), name=name) for name in sorted(hashes))
    else:
        raise UsageError("give the images with --data DIR; only files of logits can do without")
    matched, truth = _match(every, first, options)
    if hashes:
        hashes = {new.name: hashes[old.name] for new, old in zip(matched, every, strict=True)}
    if truth is not None:
        truth = replace(truth, how="; ".join(filter(None, (truth.how, note))))
    note = note if truth is None else truth.how
    if note is not None:
        progress.note(note)
    chosen = select_images(matched, options.images, options.seed)
    return DataSet(images=chosen, truth=truth, hashes=hashes, skipped=tuple(skipped))


def answer(
    sources: Sequence[Source], images: Sequence[ImageFile], hashes: Mapping[str, str], *,
    want_hashes: bool = False,
) -> Iterator[Answered]:  # fmt: skip
    """Yield what all sources answer, in batches.

    Images that a source cannot take are left out and listed. Where a batch begins decides which
    images a backend sees together, and so, in the last bits, its logits.

    Args:
        sources: Whom to ask.
        images: The images.
        hashes: Of their files by name, where they are known.
        want_hashes: Whether the files' hashes are wanted.

    Raises:
        DataError: Only some sources can prepare an image.
    """
    live = next((source for source in sources if isinstance(source, Live)), None)
    wanted = want_hashes or any(isinstance(source, Recorded) for source in sources)
    batches: Iterator[Batch]
    if live is not None:
        batches = stream_pixels(images, live.preprocess, size=live.size, batch=BATCH)
    else:
        batches = _unread(images, hashes)
    for batch in batches:
        skipped = [Skipped(image=image.name, reason=error.reason) for image, error in batch.errors]
        kept = []
        for place, (image, digest) in enumerate(zip(batch.images, batch.hashes, strict=True)):
            absent = next((s for s in sources if not _has(s, digest)), None)
            if absent is None:
                kept.append(place)
            else:
                skipped.append(Skipped(image=image.name, reason=as_utf8(f"not in {absent.name}")))
        names = tuple(batch.images[place] for place in kept)
        mine = tuple(batch.hashes[place] for place in kept) if wanted else ()
        logits: tuple[Logits, ...] = ()
        if kept:
            pixels = batch.stack()[kept] if live is not None else None
            logits = tuple(_ask(source, live, names, mine, pixels) for source in sources)
        yield Answered(images=names, hashes=mine, logits=logits, skipped=tuple(skipped))


def _check_outputs(first: Source, other: Source) -> None:
    if first.classes != other.classes:
        raise DataError(
            f"{other.name} has {other.classes} outputs, {first.name} {first.classes}; "
            "compare a bundle with the model that it was made from"
        )


def _check_labels(sides: Sequence[tuple[str, Labels | None]]) -> str | None:
    """Refuse class names that differ; return what to say where only some sides have them.

    Two models whose outputs mean different classes can be compared with no truth and no agreement.
    """
    named = [(name, labels) for name, labels in sides if labels is not None]
    if not named:
        return None
    (one, expected), *others = named
    for name, labels in others:
        found = labels.difference(expected)
        if found is not None:
            raise DataError(
                f"{name} and {one} name their classes differently: in {name} {found} as in {one}; "
                "give both the same labels, or find what it costs with --explain"
            )
    unnamed = [name for name, labels in sides if labels is None]
    if not unnamed:
        return None
    return (
        f"{as_utf8(', '.join(unnamed))} names no classes: taken to be in the order of "
        f"{as_utf8(one)}, whose class names count"
    )


def _match(
    images: tuple[ImageFile, ...], source: Source, options: DataOptions
) -> tuple[tuple[ImageFile, ...], Truth | None]:
    """Return the images and their classes.

    The one folder in which all recorded images lie is a class's, or just where they were.
    """

    def match(named: tuple[ImageFile, ...]) -> Truth | None:
        return match_truth(
            named, num_classes=source.classes, labels=source.labels, truth=options.truth
        )

    try:
        return images, match(images)
    except DataError:
        if options.data is not None or len({image.folder for image in images}) > 1:
            raise
    below = tuple(
        ImageFile(path=image.path, name=image.name.partition("/")[2] or image.name)
        for image in images
    )
    return below, match(below)


def _recorded_images(source: Recorded) -> tuple[dict[str, str], list[Skipped]]:
    """Return the hashes of recorded images by name; what their folders have in common is left out.

    The last folder stays: it may be a class's.
    """
    hashes, errors = dict(source.file.images), dict(source.file.errors)
    if not hashes:
        raise DataError(f"{source.name} holds no image's logits; record some with predict")
    parts = [PurePosixPath(name).parts for name in (*hashes, *errors)]
    shared = 0
    while all(len(own) > shared + 2 and own[shared] == parts[0][shared] for own in parts):
        shared += 1

    def below(name: str) -> str:
        return PurePosixPath(*PurePosixPath(name).parts[shared:]).as_posix()

    skipped = [Skipped(image=below(name), reason=why) for name, why in errors.items()]
    return {below(name): digest for name, digest in hashes.items()}, skipped


def _unread(images: Sequence[ImageFile], known: Mapping[str, str]) -> Iterator[Batch]:
    """Yield the images without pixels, for sources that know them by their files' hashes."""
    for start in range(0, len(images), BATCH):
        part = tuple(images[start : start + BATCH])
        hashes = tuple(known.get(image.name) or sha256_file(image.path) for image in part)
        yield Batch(images=part, pixels=(), hashes=hashes)


def _has(source: Source, digest: str) -> bool:
    return isinstance(source, Live) or digest in source.file


def _ask(
    source: Source, shared: Live | None, images: Sequence[ImageFile], hashes: Sequence[str],
    pixels: Pixels | None,
) -> Logits:  # fmt: skip
    """Return a source's logits; it takes the shared pixels where it prepares images alike."""
    if isinstance(source, Recorded):
        return source.file.logits(hashes)
    assert shared is not None
    assert pixels is not None
    if source.preprocess == shared.preprocess and source.size == shared.size:
        return source.logits(pixels)
    return source.logits(np.stack([_read(image, source) for image in images]))


def _read(image: ImageFile, source: Live) -> Pixels:
    try:
        return to_pixels(image.path, source.preprocess, size=source.size)
    except ImageError as error:
        raise DataError(f"{source.name} cannot take {image.name}: {error.reason}") from error
