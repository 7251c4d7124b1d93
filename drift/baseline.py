"""A model's answers as a file that a repository can keep: JSON, one line per image, sorted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from ..core.errors import DataError
from ..core.files import write_atomic
from ..core.preprocess import Preprocess
from ..data.labels import Labels
from .answers import CONFIDENCE_ONE, Answers, Indices

FORMAT: Final = "edgecls-baseline"
SCHEMA_VERSION: Final = 2
_HASH_DIGITS: Final = 16


class Kept(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What is kept of an image.

    Attributes:
        sha256: The first 16 digits of its file's hash.
        truth: Its class; None without ground truth.
        top1: The model's answer.
        in_top5: Whether the true class is among the five best; None without ground truth.
        confidence: The probability of the answer, 0..1, five decimals.
    """

    sha256: str
    truth: int | None
    top1: int
    in_top5: bool | None
    confidence: float


class Baseline(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model's answers to a data set.

    Attributes:
        model: What was run, as the user named it.
        backend: What ran it.
        classes: The model's outputs.
        preprocess: What its images went through.
        images: By name.
        labels: Its classes' names, where known.
        skipped: Images that could not be read when it was made.
    """

    model: str
    backend: str
    classes: int
    preprocess: Preprocess
    images: dict[str, Kept]
    labels: Labels | None = None
    skipped: tuple[str, ...] = ()
    format: str = FORMAT
    schema_version: int = SCHEMA_VERSION

    def write(self, path: Path) -> None:
        """Write the file: the same answers give the same bytes, one image is one line."""
        head = msgspec.to_builtins(self)
        del head["images"]
        lines = ["{"]
        lines += [
            f" {json.dumps(key)}: {json.dumps(value)}," for key, value in sorted(head.items())
        ]
        lines.append(' "images": {')
        rows = [
            f"  {json.dumps(name)}: {json.dumps(msgspec.to_builtins(kept))}"
            for name, kept in sorted(self.images.items())
        ]
        write_atomic(path, "\n".join([*lines, ",\n".join(rows), " }", "}", ""]).encode())

    def check(
        self, *, path: Path, preprocess: Preprocess, classes: int, names: Sequence[str],
        truth: Mapping[str, int] | None,
    ) -> None:  # fmt: skip
        """Refuse a comparison with another data set or preprocessing, before any image is run.

        Raises:
            DataError: Something changed; the message says what, and how to make a new baseline.
        """
        changed = [
            f"{field} was {getattr(self.preprocess, field)!r}, is {getattr(preprocess, field)!r}"
            for field in Preprocess.__struct_fields__
            if getattr(self.preprocess, field) != getattr(preprocess, field)
        ]
        if changed:
            raise _outdated(path, f"the preprocessing has changed: {'; '.join(changed)}")
        if classes != self.classes:
            raise _outdated(path, f"it has {self.classes} classes, the model {classes}")
        added = sorted(set(names) - set(self.images) - set(self.skipped))
        missing = sorted(set(self.images) - set(names))
        if added or missing:
            example = f", e.g. {(added or missing)[0]!r}"
            raise _outdated(
                path,
                f"the data set has changed: {len(added)} images are new and {len(missing)} are "
                f"missing{example}; with --images and --seed both runs must choose the same",
            )
        for name in (name for name in names if name in self.images):
            known, found = self.images[name].truth, None if truth is None else truth[name]
            if known != found:
                raise _outdated(
                    path, f"the ground truth has changed: {name!r} was class {known}, is {found}"
                )


def kept_answers(
    path: Path, names: Sequence[str], kept: Sequence[Kept | None], hashes: Sequence[str]
) -> Answers:
    """Return what was answered to a batch.

    Args:
        path: The baseline, for messages.
        names: Of the images, N.
        kept: Its entries of these images, N; None of one that could not be read.
        hashes: SHA-256 of their files, N.

    Raises:
        DataError: A file has changed.
    """
    entries = []
    for name, entry, found in zip(names, kept, hashes, strict=True):
        if entry is None:
            raise _outdated(
                path, f"the data set has changed: {name!r} could not be read then, and can now"
            )
        if entry.sha256 != found[:_HASH_DIGITS]:
            raise _outdated(path, f"the data set has changed: {name!r} is another file")
        entries.append(entry)
    in_top5 = [entry.in_top5 for entry in entries]
    confidence = [round(entry.confidence * CONFIDENCE_ONE) for entry in entries]
    return Answers(
        top1=np.asarray([entry.top1 for entry in entries], np.int64),
        in_top5=None if None in in_top5 else np.asarray(in_top5, np.bool_),
        confidence=np.asarray(confidence, np.int64),
    )


def keep(hashes: Sequence[str], answers: Answers, truth: Indices | None) -> list[Kept]:
    """Return what a baseline keeps of a batch."""
    return [
        Kept(
            sha256=digest[:_HASH_DIGITS],
            truth=None if truth is None else int(truth[index]),
            top1=int(answers.top1[index]),
            in_top5=None if answers.in_top5 is None else bool(answers.in_top5[index]),
            confidence=int(answers.confidence[index]) / CONFIDENCE_ONE,
        )
        for index, digest in enumerate(hashes)
    ]


def read_baseline(path: Path) -> Baseline:
    """Read a baseline.

    Raises:
        DataError: Not readable, not a baseline, or not consistent.
    """
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Baseline)
    except (OSError, msgspec.DecodeError, ValueError) as error:
        raise DataError(f"{path}: not a baseline that --save-baseline wrote: {error}") from error
    if found.format != FORMAT or found.schema_version != SCHEMA_VERSION:
        raise DataError(
            f"{path}: expected {FORMAT} of version {SCHEMA_VERSION}, found {found.format} of "
            f"version {found.schema_version}; make a new one with --save-baseline"
        )
    if found.labels is not None and len(found.labels.names) != found.classes:
        raise DataError(
            f"{path}: it names {len(found.labels.names)} classes, its model has {found.classes}"
        )
    for name, entry in found.images.items():
        indices = [entry.top1, *([] if entry.truth is None else [entry.truth])]
        within = all(0 <= index < found.classes for index in indices)
        if not within or (entry.truth is None) != (entry.in_top5 is None):
            raise DataError(f"{path}: the entry of {name!r} is damaged: {entry}")
        if not 0 <= entry.confidence <= 1:
            raise DataError(f"{path}: {name!r} has a confidence of {entry.confidence}")
    return found


def _outdated(path: Path, why: str) -> DataError:
    return DataError(
        f"{path}: {why}; nothing can be compared. Make a new baseline with --save-baseline from "
        "the release that it stands for"
    )
