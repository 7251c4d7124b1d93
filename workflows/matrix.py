"""The same images on several devices or models: how often each pair agrees."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.progress import Progress
from ..drift.matrix import Matrix
from .answering import DataOptions, gather
from .scale import HERE, Scale, run
from .shards import Job
from .sources import Source


def matrix(
    sources: Sequence[Source], data: DataOptions, progress: Progress, scale: Scale = HERE
) -> Matrix:
    """Compare every pair on the images that all sources take.

    Raises:
        DataError: There is no readable image, or the sources' outputs differ.
    """
    found = gather(sources, data, progress)
    job = Job(sources=tuple(source.spec for source in sources), matrix=True)
    partial = run(job, sources, found, scale, progress)
    return Matrix(
        sources=tuple(source.name for source in sources),
        backends=tuple(source.backend for source in sources),
        images=partial.images,
        pairs=partial.agreement.result(),
        skipped=tuple(partial.skipped),
    )
