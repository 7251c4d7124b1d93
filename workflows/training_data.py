"""What a training learns from and what it is judged by, with the batches of each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..core.errors import DataError, UsageError
from ..core.preprocess import Preprocess
from ..core.progress import Progress
from ..core.values import Tensor
from ..data.augment import Augment
from ..data.cache import MemoryCache
from ..data.dataset import Dataset, open_dataset, open_splits
from ..data.loader import Loaded, Loader
from ..data.split import split_dataset
from ..models.trained import DataRecord
from ..training import Settings
from ..training.distributed import Group

_JUDGING: Final = ("val", "valid", "validation")
_JUDGE_BATCH: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class DataChoice:
    """Which images, and how they are read.

    Attributes:
        path: A data set, as ``data.dataset.open_splits`` takes it.
        val: Another one to judge by; without it ``path``'s own part of that name, or a share.
        val_share: Of the images to learn from that judge instead, where there is no such part; 0
            judges nothing and keeps the last epoch.
        augment: What happens to images that are learned from.
        augment_name: The preset that it was made from.
        workers: Threads that decode.
        cache_bytes: For decoded images in memory.
    """

    path: Path
    val: Path | None = None
    val_share: float = 0.1
    augment: Augment
    augment_name: str = "none"
    workers: int = 2
    cache_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedData:
    """Images to learn from and to judge by.

    Attributes:
        train: To learn from.
        val: To judge by; None judges nothing.
        cache: Of decoded images, which outlives epochs and trainings.
    """

    train: Dataset
    val: Dataset | None
    cache: MemoryCache


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """The same, as one training reads them.

    Attributes:
        opened: The images.
        preprocess: What they go through.
        size: (height, width) in px of the model's input.
        augment: What happens to those that are learned from.
        settings: The seed and the batch.
        workers: Threads that decode.
        left_out: What could not be read so far, which has been said.
    """

    opened: OpenedData
    preprocess: Preprocess
    size: tuple[int, int]
    augment: Augment
    settings: Settings
    workers: int
    left_out: set[str] = field(default_factory=set)

    @property
    def train(self) -> Dataset:
        """To learn from."""
        return self.opened.train

    @property
    def val(self) -> Dataset | None:
        """To judge by."""
        return self.opened.val

    @property
    def steps_per_epoch(self) -> int:
        """Batches that are full, over all processes."""
        return len(self.train) // self.settings.batch

    def to_learn(
        self, epoch: int, pool: Executor, group: Group, progress: Progress
    ) -> Iterator[tuple[Tensor, NDArray[Any]]]:
        """Yield this process's part of an epoch (0, 1, ...), shuffled and changed by chance."""
        for loaded in self.loaded_to_learn(epoch, pool, group, progress):
            yield loaded.images, loaded.labels  # type: ignore[misc]

    def loaded_to_learn(
        self, epoch: int, pool: Executor, group: Group, progress: Progress, *,
        normalize: bool = True,
    ) -> Iterator[Loaded]:  # fmt: skip
        """Yield the same with each image's place in the data set, or as pixels."""
        loader = Loader(
            self.train, self.preprocess, batch=self.settings.batch // group.world,
            seed=self.settings.seed, epoch=epoch, augment=self.augment, workers=pool,
            cache=self.opened.cache, rank=group.rank, world=group.world, size=self.size,
            normalize=normalize,
        )  # fmt: skip
        return self._noted(loader, progress)

    def to_judge(
        self, pool: Executor, group: Group, progress: Progress
    ) -> Iterator[tuple[Tensor, NDArray[Any]]]:
        """Yield this process's part of the images to judge by, as they are."""
        assert self.val is not None
        loader = Loader(
            self.val, self.preprocess, batch=_JUDGE_BATCH, workers=pool, cache=self.opened.cache,
            rank=group.rank, world=group.world, size=self.size, shuffle=False,
        )  # fmt: skip
        for loaded in self._noted(loader, progress):
            yield loaded.images, loaded.labels  # type: ignore[misc]

    def _noted(self, loader: Loader, progress: Progress) -> Iterator[Loaded]:
        """Say of each image once that it is left out, when its batch is."""
        for loaded in loader.batches():
            for name, reason in loader.unreadable:
                if name not in self.left_out:
                    self.left_out.add(name)
                    progress.note(f"left out, unreadable: {name}: {reason}")
            yield loaded


def open_data(choice: DataChoice, seed: int, progress: Progress) -> OpenedData:
    """Open the images, and choose those to judge by.

    Args:
        choice: Which.
        seed: Chooses the share to judge by; by content, never by order.
        progress: Hears what was chosen.

    Raises:
        DataError: They cannot be used, or the two sets have other classes.
        UsageError: The share is none.
    """
    if not 0 <= choice.val_share < 1:
        raise UsageError(f"the share to judge by must lie in 0..1, found {choice.val_share:g}")
    parts = open_splits(choice.path)
    train = parts.get("train") or next(iter(parts.values()))
    if len(parts) > 1 and "train" not in parts:
        raise DataError(f"{choice.path}: expected a part 'train', found {', '.join(parts)}")
    if np.count_nonzero(train.counts) < 2:
        raise DataError(
            f"{train.name}: expected images of two classes or more, found {len(train)} of "
            f"{train.classes[int(train.labels[0])]!r}; give the folder in which the classes' "
            "folders are"
        )
    val: Dataset | None = None
    own = next((parts[name] for name in _JUDGING if name in parts), None)
    if choice.val is not None:
        val = open_dataset(choice.val, classes=train.classes)
    elif own is not None:
        val = own
    elif choice.val_share:
        train, val = split_dataset(train, held_out=choice.val_share, seed=seed)
        progress.note(
            f"{len(val)} of the images judge, chosen by content and seed, and are not learned "
            "from (--val DIR gives others)"
        )
    if val is not None and val.classes != train.classes:
        raise DataError(
            f"{val.name} has other classes than {train.name}: expected "
            f"{_listed(train.classes)}, found {_listed(val.classes)}"
        )
    if val is not None and describe_data(val).sha256 == describe_data(train).sha256:
        progress.note(
            f"{val.name}: the images that judge are those that are learned from: what is said of "
            "them says nothing of others"
        )
    return OpenedData(train=train, val=val, cache=MemoryCache(choice.cache_bytes))


def bind(
    opened: OpenedData, choice: DataChoice, preprocess: Preprocess, size: tuple[int, int],
    settings: Settings,
) -> TrainingData:  # fmt: skip
    """Return the images as one training reads them.

    Raises:
        DataError: They do not fill a batch.
    """
    if len(opened.train) < settings.batch:
        raise DataError(
            f"{opened.train.name}: {len(opened.train)} images to learn from do not fill a batch of "
            f"{settings.batch}; lower --batch"
        )
    return TrainingData(
        opened=opened, preprocess=preprocess, size=size, augment=choice.augment,
        settings=settings, workers=choice.workers,
    )  # fmt: skip


def describe_data(dataset: Dataset) -> DataRecord:
    """Return what identifies a data set: the files' names, sizes and classes; not every byte."""
    digest = hashlib.sha256(msgspec.json.encode([*dataset.classes]) + dataset.labels.tobytes())
    if dataset.pixels is not None:
        digest.update(repr(dataset.pixels.shape).encode())
        digest.update(np.ascontiguousarray(dataset.pixels).data)
    for file in dataset.files or ():
        digest.update(f"{file.name}\0{_bytes_of(file.path)}\0".encode())
    return DataRecord(name=dataset.name, images=len(dataset), sha256=digest.hexdigest())


def _bytes_of(path: Path) -> int | None:
    """Return a file's size; None where it is gone, which the loader leaves out and counts."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def _listed(names: tuple[str, ...]) -> str:
    return f"{len(names)}: " + ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
