"""What an interrupted comparison has done so far, as a file from which it goes on."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from ..core.errors import DataError
from ..core.files import sha256_bytes, write_atomic
from ..core.version import VERSION
from ..drift.baseline import Baseline
from ..drift.partial import Partial
from .answering import DataSet
from .shards import SHARD, Job
from .sources import Live, Source

FORMAT: Final = "edgecls-drift-progress"
SCHEMA_VERSION: Final = 2
EVERY_S: Final = 2.0
"""How much work a kill may cost; more where a write takes long."""

PART_OF_TIME: Final = 0.05
"""The most that is spent on writing."""


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Attributes as of ``Resume``; ``done`` as ranges, first and last; the hash is of both."""

    format: str
    schema_version: int
    identity: dict[str, str]
    done: list[tuple[int, int]]
    sha256: str
    partial: msgspec.Raw


class Resume:
    """Keeps what is done, atomically: after a kill the file is as it was at some moment before.

    Attributes:
        path: The file.
        partial: The sum of what is done.
        done: The shards in it.
    """

    def __init__(self, path: Path, identity: Mapping[str, str], images: int) -> None:
        """Take what the file holds, where there is one.

        Args:
            path: The file; it need not be there yet.
            identity: Hashes of what the answers depend on, by what it is.
            images: How many there are in all shards.

        Raises:
            DataError: The file is of another run, damaged, or none that was written here.
        """
        self.path = path
        self.partial = Partial()
        self.done: set[int] = set()
        self._identity = dict(identity)
        self._images = images
        self._write_again_at = 0.0
        if path.exists():
            self._read()

    def add(self, index: int, partial: Partial) -> None:
        """Take a shard's result, and write the file if it is a while since."""
        # What is written is whole: an interruption between the two lines comes before a write.
        self.partial.merge(partial)
        self.done.add(index)
        if time.monotonic() >= self._write_again_at:
            self.write()

    def write(self) -> None:
        """Write the file.

        Raises:
            OSError: It could not be written; the old one is untouched.
        """
        start = time.monotonic()
        partial, done = msgspec.Raw(self.partial.to_json()), list(_ranges(sorted(self.done)))
        found = _File(
            format=FORMAT, schema_version=SCHEMA_VERSION, identity=self._identity, done=done,
            sha256=_hash([done, partial]), partial=partial,
        )  # fmt: skip
        write_atomic(self.path, msgspec.json.encode(found) + b"\n")
        end = time.monotonic()
        self._write_again_at = end + max(EVERY_S, (end - start) / PART_OF_TIME)

    def _read(self) -> None:
        try:
            found = msgspec.json.decode(self.path.read_bytes(), type=_File)
        except (OSError, msgspec.DecodeError, ValueError) as error:
            raise self._refused(f"it is none that --resume wrote: {error}") from error
        if (found.format, found.schema_version) != (FORMAT, SCHEMA_VERSION):
            raise self._refused(f"it is {found.format} of version {found.schema_version}")
        names = [*self._identity, *(name for name in found.identity if name not in self._identity)]
        changed = [name for name in names if found.identity.get(name) != self._identity.get(name)]
        if changed:
            raise self._refused(f"since it was begun there changed {' and '.join(changed)}")
        if _hash([found.done, found.partial]) != found.sha256:
            raise self._refused("it is damaged")
        self.partial = Partial.from_json(bytes(found.partial))
        self.done = {index for first, last in found.done for index in range(first, last + 1)}
        expected = sum(min(SHARD, self._images - index * SHARD) for index in self.done)
        counted = self.partial.images + len(self.partial.skipped)
        if counted != expected:
            raise self._refused(
                f"it is damaged: the parts done have {expected} images, it has counted {counted}"
            )

    def _refused(self, why: str) -> DataError:
        return DataError(
            f"--resume {self.path}: {why}; nothing was run. Remove the file, or name another, to "
            "begin again"
        )


def identity(
    job: Job, sources: Sequence[Source], found: DataSet, baseline: Baseline | None, options: object
) -> dict[str, str]:
    """Return hashes of all that a comparison's answers depend on, by what it is.

    Images are known by name, size and time of change: to hash a million files takes as long as to
    compare them. A model is known by its files, by its backend's version and by its logits for one
    image of noise, which tell another machine's arithmetic and a model that is made by code.

    Args:
        job: What is done.
        sources: Its sources.
        found: The images.
        baseline: The reference, where it is one.
        options: What else the report depends on.
    """
    names = ["the candidate", "the reference"]
    if job.matrix:
        names = [f"source {index}" for index in range(1, len(sources) + 1)]
    sides = {
        name: _hash([spec.sha256, spec.threads, spec.preprocess, _probe(source)])
        for name, spec, source in zip(names, job.sources, sources, strict=False)
    }
    if baseline is not None:
        sides["the reference"] = _hash([baseline])
    truth = found.truth
    return {
        **sides,
        "the data": _hash(_seen(found)),
        "the ground truth": _hash(
            [] if truth is None else [truth.classes[image.name] for image in found.images]
        ),
        "the options": _hash([options, job.matrix, job.baseline, job.keep, SHARD]),
        "edgecls": VERSION,
    }


def _probe(source: Source) -> str | None:
    if not isinstance(source, Live):
        return None
    shape = (1, *source.size, source.preprocess.channels)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    return sha256_bytes(source.logits(pixels).tobytes())


def _seen(found: DataSet) -> Iterator[object]:
    for image in found.images:
        known = found.hashes.get(image.name)
        if known is None:
            status = image.path.stat()
            yield [image.name, status.st_size, status.st_mtime_ns]
        else:
            yield [image.name, known]
    yield [[item.image, item.reason] for item in found.skipped]


def _hash(parts: Iterable[object]) -> str:
    return sha256_bytes(b"\n".join(msgspec.json.encode(part) for part in parts))


def _ranges(indices: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield first and last of each run of indices that follow each other."""
    first = last = -1
    for index in indices:
        if index != last + 1 or first < 0:
            if first >= 0:
                yield first, last
            first = index
        last = index
    if first >= 0:
        yield first, last
