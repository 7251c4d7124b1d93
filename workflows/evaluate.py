"""A model's answers to images whose classes are known, whatever the images come in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..core.errors import DataError, ImageError, UsageError
from ..core.progress import Progress
from ..core.text import as_utf8
from ..core.values import Logits
from ..data.dataset import Dataset, open_dataset
from ..data.images import ImageFile, select_images
from ..data.loader import TOLERANCE, Loader
from ..data.thumbnail import thumbnail
from ..data.truth import match_classes
from ..drift.evaluation import Evaluation, EvaluationCounts
from ..drift.report import Provenance, Skipped
from .answering import BATCH, DataOptions, answer, gather
from .sources import Live, Source

Picture = Callable[[str], tuple[str, bytes]]
"""Gives an image's media type and bytes by its name, for a page."""

_THUMBNAIL: Final = 176

Answers = Iterator[tuple[Sequence[str], Logits, NDArray[np.int64], Sequence[Skipped]]]
"""Names, logits and classes of batches, and what was left out of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateOptions:
    """Which images.

    Attributes:
        data: A data set; None where the source is recorded.
        split: Which of its parts.
        truth: Class indices of the images of a folder.
        images: How many of them; None is all.
        seed: Chooses them.
        tolerance: The share of the images that may be unreadable.
    """

    data: Path | None = None
    split: str | None = None
    truth: Path | None = None
    images: int | None = None
    seed: int = 0
    tolerance: float = TOLERANCE


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """What was found.

    Attributes:
        evaluation: The numbers.
        picture: Shows an image of the data set; None where there are none.
        too_many_skipped: Whether more images were unreadable than may be.
    """

    evaluation: Evaluation
    picture: Picture | None
    too_many_skipped: bool


def evaluate(source: Source, options: EvaluateOptions, progress: Progress) -> Evaluated:
    """Ask a model about every image; those that cannot be read are left out and listed.

    Raises:
        DataError: There is no readable image, no class is known, or the classes do not fit.
        UsageError: There is nothing to ask about.
    """
    dataset: Dataset | None = None
    if options.data is not None and options.truth is None:
        dataset = open_dataset(options.data, split=options.split)
    elif options.split is not None:
        raise UsageError("--split names a part of a data set; it goes with --data, without --truth")
    if dataset is not None and not _by_folder(dataset):
        asked = _ask_dataset(source, dataset, options)
        progress.note(asked.how)
    else:
        folder = options.data if dataset is None else dataset.folder
        asked = _ask_folder(source, folder, options, progress)
    counts = EvaluationCounts()
    skipped: list[Skipped] = []
    batches = -(-asked.count // BATCH)
    for names, logits, truth, left_out in progress.track(asked.answers, "evaluating", batches):
        skipped += left_out
        if len(names):
            counts.add(names, logits, truth)
    if asked.count == len(skipped):
        first = f": {skipped[0].image}: {skipped[0].reason}" if skipped else ""
        raise DataError(f"no image can be read{first}")
    labels = source.labels
    evaluation = counts.result(
        model=source.name,
        backend=source.backend,
        truth=asked.how,
        names=asked.names if labels is None else dict(enumerate(labels.names)),
        skipped=tuple(skipped),
        provenance=Provenance(
            preprocess=source.preprocess,
            data=None if options.data is None else as_utf8(str(options.data)),
            seed=options.seed,
        ),
    )
    return Evaluated(
        evaluation=evaluation,
        picture=asked.picture,
        too_many_skipped=len(skipped) > options.tolerance * asked.count,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """Images that are being asked about.

    Attributes:
        how: Where their classes come from.
        count: How many there are, also unreadable ones.
        answers: To them.
        names: What the data set calls the model's outputs.
        picture: Shows them.
    """

    how: str
    count: int
    answers: Answers
    names: Mapping[int, str]
    picture: Picture | None


def _by_folder(dataset: Dataset) -> bool:
    """Return whether the folders' names say the classes, so that their match is known."""
    return dataset.files is not None and dataset.table is None


def _ask_folder(
    source: Source, folder: Path | None, options: EvaluateOptions, progress: Progress
) -> _Asked:
    found = gather(
        [source],
        DataOptions(data=folder, truth=options.truth, images=options.images, seed=options.seed),
        progress,
    )
    known = found.truth
    if known is None:
        raise DataError(
            f"{folder or source.name}: no image's class is known; expected a folder per class, or "
            "--truth FILE"
        )

    def answers() -> Answers:
        if found.skipped:
            yield (), np.zeros((0, source.classes), np.float32), _NONE, found.skipped
        for batch in answer([source], found.images, found.hashes):
            names = [image.name for image in batch.images]
            logits = batch.logits[0] if names else np.zeros((0, source.classes), np.float32)
            yield names, logits, known.of(batch.images), batch.skipped

    folders = found.images if options.truth is None else ()
    return _Asked(
        how=known.how,
        count=len(found.images) + len(found.skipped),
        answers=answers(),
        names={known.classes[image.name]: image.folder for image in folders},
        picture=None if folder is None else _picture_of(folder, source),
    )


_NONE: Final = np.zeros(0, np.int64)


def _ask_dataset(source: Source, dataset: Dataset, options: EvaluateOptions) -> _Asked:
    """Ask about images in memory, or files with a table of labels."""
    if not isinstance(source, Live):
        raise DataError(
            f"{source.name} knows images by their files; {dataset.name} is no folder of classes: "
            "record from one, or give a model or a bundle"
        )
    indices, how = match_classes(dataset.classes, source.labels, source.classes)
    names = [dataset.name_of(index) for index in range(len(dataset))]
    if options.images is not None:
        files = [ImageFile(path=Path(name), name=name) for name in names]
        chosen = {image.name for image in select_images(files, options.images, options.seed)}
        dataset = dataset.subset([i for i, name in enumerate(names) if name in chosen])
        names = [name for name in names if name in chosen]
    loader = Loader(
        dataset, source.preprocess, batch=BATCH, shuffle=False, size=source.size, normalize=False,
        tolerance=1.0,
    )  # fmt: skip

    def answers() -> Answers:
        listed = 0
        for loaded in loader.batches():
            assert loaded.images.dtype == np.uint8
            shown = [names[index] for index in loaded.indices.tolist()]
            new = loader.unreadable[listed:]
            listed += len(new)
            left_out = [Skipped(image=name, reason=reason) for name, reason in new]
            truth = indices[dataset.labels[loaded.indices]]
            yield shown, source.logits(loaded.images), truth, left_out  # type: ignore[arg-type]
        rest = loader.unreadable[listed:]
        if rest:
            empty = np.zeros((0, source.classes), np.float32)
            yield (), empty, _NONE, [Skipped(image=name, reason=why) for name, why in rest]

    return _Asked(
        how=how,
        count=len(dataset),
        answers=answers(),
        names=dict(zip(indices.tolist(), dataset.classes, strict=True)),
        picture=_picture(dataset, source),
    )


def _picture_of(folder: Path, source: Source) -> Picture:
    return lambda name: thumbnail(folder / name, longest=_THUMBNAIL, color=source.preprocess)


def _picture(dataset: Dataset, source: Source) -> Picture:
    places = {dataset.name_of(index): index for index in range(len(dataset))}

    def picture(name: str) -> tuple[str, bytes]:
        if name not in places:
            raise ImageError(name, "its name is not the data set's")
        image = dataset.source(places[name])
        return thumbnail(image, longest=_THUMBNAIL, color=source.preprocess)

    return picture
