"""The same images on several devices or models: how often each pair agrees."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.progress import Progress
from ..drift.matrix import AgreementCounts, Matrix
from .answering import DataOptions, answer, gather
from .sources import Source


def matrix(sources: Sequence[Source], data: DataOptions, progress: Progress) -> Matrix:
    """Compare every pair on the images that all sources take.

    Raises:
        DataError: There is no readable image, or the sources' outputs differ.
    """
    found = gather(sources, data, progress)
    counts, skipped = AgreementCounts(), list(found.skipped)
    for batch in answer(sources, found, progress):
        skipped += batch.skipped
        if batch.images:
            counts.add([logits.argmax(1) for logits in batch.logits])
    return Matrix(
        sources=tuple(source.name for source in sources),
        backends=tuple(source.backend for source in sources),
        images=counts.images,
        pairs=counts.result(),
        skipped=tuple(skipped),
    )
