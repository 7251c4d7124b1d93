"""Does a comparison's shards: here, in processes or on a cluster; from where it stopped."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..core.errors import DataError
from ..core.progress import Progress
from ..drift.baseline import Baseline
from ..drift.partial import Partial
from .answering import DataSet
from .processes import run_processes
from .resume import Resume, identity
from .shards import Job, Shard, Shards, Worker
from .sources import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Who does the work, and where it is kept meanwhile; no answer depends on it.

    Attributes:
        workers: Processes; 1 is this one, on a cluster as many as it has CPUs. None is 1 here.
        ray: A Ray cluster's address, host:port.
        resume: A file to go on from, and to keep what is done in.
    """

    workers: int | None = None
    ray: str | None = None
    resume: Path | None = None


HERE: Final = Scale()


def run(
    job: Job, sources: Sequence[Source], found: DataSet, scale: Scale, progress: Progress, *,
    baseline: Baseline | None = None, options: object = None,
) -> Partial:  # fmt: skip
    """Return the merged result of all images.

    Args:
        job: What is done.
        sources: The job's, open in this process.
        found: The images.
        scale: Who does it.
        progress: Shows how far it is.
        baseline: The reference, where it is one.
        options: What else the report depends on; kept with what is resumed.

    Raises:
        DataError: No image could be compared, or ``scale.resume`` is of another run.
        EdgeclsError: A worker's.
    """
    shards = Shards(found=found, baseline=baseline)
    kept: Resume | None = None
    total, missing = Partial(), list(range(len(shards)))
    if scale.resume is not None:
        run_of = identity(job, sources, found, baseline, options)
        kept = Resume(scale.resume, run_of, len(found.images))
        total, missing = kept.partial, [index for index in missing if index not in kept.done]
        if kept.done:
            progress.note(
                f"{scale.resume}: {len(kept.done)} of {len(shards)} parts are done already"
            )
    runner = _runner(job, sources, scale, (shards[index] for index in missing))
    with closing(runner):
        for index, partial in progress.track(runner, "comparing", len(missing)):
            if kept is None:
                total.merge(partial)
            else:
                kept.add(index, partial)
    if kept is not None:
        kept.write()
    total.skipped += found.skipped
    total.skipped.sort(key=lambda item: (item.image, item.reason))
    if not total.images:
        raise DataError(
            f"none of {len(found.images)} images can be compared, e.g. {total.skipped[0].reason}"
        )
    return total


def _runner(
    job: Job, sources: Sequence[Source], scale: Scale, shards: Iterable[Shard]
) -> Generator[tuple[int, Partial], None, None]:
    if scale.ray is not None:
        from .ray_cluster import run_ray

        return run_ray(job, shards, scale.ray, scale.workers)
    if scale.workers is not None and scale.workers > 1:
        return run_processes(job, shards, scale.workers)
    return _run_here(Worker(job=job, sources=sources), shards)


def _run_here(
    worker: Worker, shards: Iterable[Shard]
) -> Generator[tuple[int, Partial], None, None]:
    for shard in shards:
        yield shard.index, worker(shard)
