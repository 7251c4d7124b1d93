"""A comparison cut into shards: each is a value, its work needs no other, its result merges.

The cut depends on the images alone, not on who does the work: a shard's images meet a backend in
the same batches everywhere, so the logits are the same, bit for bit.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from ..core.values import Logits
from ..data.images import ImageFile
from ..drift.answers import answers_of
from ..drift.baseline import Baseline, Kept, keep, kept_answers
from ..drift.partial import Partial
from .answering import BATCH, Answered, DataSet, answer
from .softmax import is_probabilities, log_softmax
from .sources import Source, SourceSpec, open_again

SHARD: Final = 4 * BATCH
"""Images of a shard: few, so that the last ones keep every worker busy; whole batches."""


class Shard(msgspec.Struct, frozen=True, kw_only=True):
    """Images that follow each other, N.

    Attributes:
        index: Its place, from 0.
        names: Of the images.
        paths: Of their files, as the system has them: not every name is UTF-8.
        truth: Their classes, where known.
        hashes: SHA-256 of their files, where known before they are read.
        kept: What the baseline holds of them, where it is the reference; None of one that could
            not be read when it was made.
    """

    index: int
    names: tuple[str, ...]
    paths: tuple[bytes, ...]
    truth: tuple[int, ...] | None = None
    hashes: tuple[str, ...] | None = None
    kept: tuple[Kept | None, ...] | None = None


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What is done with every shard.

    Attributes:
        sources: The candidate, then its reference where there is one; or all of a matrix.
        matrix: Whether every pair is compared.
        baseline: The reference's path, for messages, where it is a baseline.
        keep: Whether the candidate's answers are kept.
    """

    sources: tuple[SourceSpec, ...]
    matrix: bool = False
    baseline: str | None = None
    keep: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Shards:
    """The shards of a data set, cut when they are asked for."""

    found: DataSet
    baseline: Baseline | None = None

    def __len__(self) -> int:
        """Return how many there are."""
        return -(-len(self.found.images) // SHARD)

    def __getitem__(self, index: int) -> Shard:
        """Return one of them."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        images = self.found.images[index * SHARD : (index + 1) * SHARD]
        names = tuple(image.name for image in images)
        truth, hashes, kept = self.found.truth, self.found.hashes, None
        if self.baseline is not None:
            kept = tuple(self.baseline.images.get(name) for name in names)
        return Shard(
            index=index,
            names=names,
            paths=tuple(os.fsencode(image.path) for image in images),
            truth=None if truth is None else tuple(truth.classes[name] for name in names),
            hashes=tuple(hashes[name] for name in names) if hashes else None,
            kept=kept,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """Does a job, with its sources open."""

    job: Job
    sources: Sequence[Source]

    @classmethod
    def open(cls, job: Job) -> Worker:
        """Open the sources where the work is done.

        Raises:
            EdgeclsError: One cannot be opened, or is another than the job's.
        """
        return cls(job=job, sources=[open_again(spec) for spec in job.sources])

    def __call__(self, shard: Shard) -> Partial:
        """Compare the answers to a shard's images.

        Raises:
            CheckFailedError: A logit is NaN or infinite.
            DataError: A baseline's image has changed, or only some sources can prepare one.
        """
        images = [
            ImageFile(path=Path(os.fsdecode(path)), name=name)
            for path, name in zip(shard.paths, shard.names, strict=True)
        ]
        hashes = dict(zip(shard.names, shard.hashes or (), strict=False))
        known = self.job.keep or shard.kept is not None
        partial = Partial()
        for batch in answer(self.sources, images, hashes, want_hashes=known):
            partial.images += len(batch.images)
            partial.skipped += batch.skipped
            if batch.images and self.job.matrix:
                partial.agreement.add([logits.argmax(1) for logits in batch.logits])
            elif batch.images:
                self._compare(partial, shard, batch)
        return partial

    def _compare(self, partial: Partial, shard: Shard, batch: Answered) -> None:
        names = [image.name for image in batch.images]
        places = [shard.names.index(name) for name in names]
        truth = shard.truth
        right = None if truth is None else np.asarray([truth[place] for place in places], np.int64)
        theirs, expected = batch.logits[0], None
        if shard.kept is not None:
            kept = [shard.kept[place] for place in places]
            expected = kept_answers(Path(self.job.baseline or ""), names, kept, batch.hashes)
        elif len(batch.logits) > 1:
            ours, theirs = _alike(batch.logits[1], theirs)
            expected = answers_of(ours, right, names=names, side="reference")
        answers = answers_of(theirs, right, names=names, side="candidate")
        if expected is not None:
            partial.comparison.add(names, expected, answers, right, classes=self.sources[0].classes)
        if self.job.keep:
            partial.kept.update(zip(names, keep(batch.hashes, answers, right), strict=True))


def _alike(expected: Logits, found: Logits) -> tuple[Logits, Logits]:
    """Return both as log-probabilities where the reference gives probabilities or these."""
    if is_probabilities(expected):
        smallest = np.finfo(np.float32).tiny
        return np.log(np.maximum(expected, smallest)), log_softmax(found)
    if (expected <= 0).all() and is_probabilities(np.exp(expected)):
        return expected, log_softmax(found)
    return expected, found
