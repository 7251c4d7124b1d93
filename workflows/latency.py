"""How long each side of a comparison takes for one image, on this machine."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from ..core.errors import DataError, ImageError, UsageError
from ..data.images import ImageFile
from ..drift.report import Latency
from ..runtimes.preprocess import to_pixels
from .sources import Live, Source

# The first runs allocate memory and fill caches.
_WARM_UP: Final = 3


def measure_latency(
    sources: Mapping[str, Source], images: Sequence[ImageFile], count: int
) -> dict[str, Latency] | None:
    """Time each side from pixels to logits, one image at a time, the sides in turn.

    What else this machine does then slows all sides alike. Decoding is not in it.

    Args:
        sources: By what the report calls them; recorded ones have no time.
        images: Of which the first readable ones are taken.
        count: How many; 0 measures nothing.

    Raises:
        UsageError: No side runs here.
        DataError: No image can be read.
    """
    if not count:
        return None
    live = {side: source for side, source in sources.items() if isinstance(source, Live)}
    if not live:
        raise UsageError("--time needs a side that runs here; recorded answers have no times")
    times: dict[str, list[float]] = {side: [] for side in live}
    for image in _readable(images, next(iter(live.values())), count):
        for side, source in live.items():
            pixels = to_pixels(image.path, source.preprocess, size=source.size)[None]
            for _ in range(_WARM_UP if not times[side] else 0):
                source.logits(pixels)
            start = time.perf_counter()
            source.logits(pixels)
            times[side].append(1e3 * (time.perf_counter() - start))
    if not times[next(iter(live))]:
        raise DataError("--time: none of the images can be read")
    return {
        side: Latency(
            images=len(found),
            median_ms=float(np.median(found)),
            p90_ms=float(np.percentile(found, 90)),
        )
        for side, found in times.items()
    }


def _readable(images: Sequence[ImageFile], source: Live, count: int) -> Iterator[ImageFile]:
    found = 0
    for image in images:
        try:
            to_pixels(image.path, source.preprocess, size=source.size)
        except ImageError:
            continue  # the report lists it
        yield image
        found += 1
        if found == count:
            return
