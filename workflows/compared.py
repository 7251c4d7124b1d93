"""How often models are right on the same images, and how far they lie apart."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..core.errors import DataError
from ..core.preprocess import Preprocess
from ..core.values import Logits, Pixels
from ..data.cache import PixelCache
from ..data.dataset import Dataset
from ..data.loader import Loader
from ..drift.paired import Paired, lower_bound, mcnemar, upper_bound
from ..drift.proportion import wilson

Rights = NDArray[np.int8]
"""Per image of a data set: 1 right, 0 wrong, -1 unreadable."""

_BATCH: Final = 64
_EACH_SIDE: Final = 0.025


class Accuracy(msgspec.Struct, frozen=True, kw_only=True):
    """Top-1 with Wilson's 95 % interval, all in percent.

    Attributes:
        top1: Of ``images``.
        low: The interval's end.
        high: Likewise.
        images: How many were asked about.
    """

    top1: float
    low: float
    high: float
    images: int


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One model's top-1 less another's on the same images, in points.

    Attributes:
        points: Above 0 where the first is better.
        low: Of the exact 95 % interval (``drift.paired``).
        high: Likewise.
        gained: Images that only the first gets right.
        lost: Images that only the other does.
        p: Of McNemar's exact test that neither is better.
    """

    points: float
    low: float
    high: float
    gained: int
    lost: int
    p: float


def rights(
    answer: Callable[[Pixels], Logits], preprocess: Preprocess, size: tuple[int, int],
    dataset: Dataset, *, workers: Executor | int = 2, cache: PixelCache | None = None,
) -> Rights:  # fmt: skip
    """Return which images a model gets right.

    Args:
        answer: From pixels (N, H, W, C) to logits (N, classes of the data set).
        preprocess: What its images go through.
        size: (height, width) in px.
        dataset: The images; those that cannot be read are marked, up to the loader's tolerance.
        workers: Threads that decode.
        cache: Of decoded images.
    """
    found = np.full(len(dataset), -1, np.int8)
    loader = Loader(
        dataset, preprocess, batch=_BATCH, shuffle=False, size=size, normalize=False,
        workers=workers, cache=cache,
    )  # fmt: skip
    for loaded in loader.batches():
        assert loaded.images.dtype == np.uint8
        logits = answer(loaded.images)  # type: ignore[arg-type]
        found[loaded.indices] = logits.argmax(1) == loaded.labels
    return found


def accuracy(of: Rights) -> Accuracy:
    """Return how often a model is right.

    Raises:
        DataError: No image can be read.
    """
    images, right = int((of >= 0).sum()), int((of == 1).sum())
    if not images:
        raise DataError("no image to judge by can be read")
    low, high = wilson(right, images)
    return Accuracy(top1=100 * right / images, low=100 * low, high=100 * high, images=images)


def difference(one: Rights, other: Rights) -> Difference:
    """Return how much better ``one`` is than ``other``, on the images that both were asked about.

    Raises:
        DataError: There is no such image.
    """
    both = (one >= 0) & (other >= 0)
    if not both.any():
        raise DataError("no image was answered by both models")
    mine, theirs = one[both] == 1, other[both] == 1
    gained, lost = int((mine & ~theirs).sum()), int((theirs & ~mine).sum())
    counts = Paired(lost, gained, int(both.sum()))
    return Difference(
        points=-100 * counts.drop,
        low=-100 * upper_bound(counts, _EACH_SIDE, 0.0),
        high=-100 * lower_bound(counts, _EACH_SIDE, 0.0),
        gained=gained,
        lost=lost,
        p=mcnemar(counts),
    )
