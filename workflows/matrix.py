"""The same images on several devices or models: how often each pair agrees."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..core.progress import Progress
from ..drift.matrix import Pair
from ..drift.report import Skipped
from .answering import DataOptions, gather
from .scale import HERE, Scale, run
from .shards import Job
from .sources import Source


class Matrix(msgspec.Struct, frozen=True, kw_only=True):
    """What the comparison of several sources found.

    Attributes:
        sources: As the user named them.
        backends: What ran each.
        images: How many were compared.
        pairs: Each pair's agreement.
        skipped: Images that not all could take.
    """

    sources: tuple[str, ...]
    backends: tuple[str, ...]
    images: int
    pairs: tuple[Pair, ...]
    skipped: tuple[Skipped, ...]


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
