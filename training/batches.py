"""Batches of images that are in memory as the model takes them."""

from __future__ import annotations

from ..core.preprocess import Preprocess
from ..data.dataset import Dataset
from ..data.loader import Loader
from .loop import Batches, OnePass
from .settings import Settings


def in_memory(dataset: Dataset, preprocess: Preprocess, settings: Settings) -> tuple[Batches, int]:
    """Return shuffled batches without changes to the images, and how many an epoch has.

    Args:
        dataset: With pixels of the model's size.
        preprocess: Normalises them.
        settings: The seed and the batch.
    """

    def batches(epoch: int) -> OnePass:
        return Loader(  # type: ignore[return-value]
            dataset, preprocess, batch=settings.batch, seed=settings.seed, epoch=epoch
        )

    return batches, len(dataset) // settings.batch
