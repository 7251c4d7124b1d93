"""Batches for training and evaluation: decoded in threads or processes, the same every time."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..core.errors import DataError, ImageError
from ..core.preprocess import Preprocess
from ..core.values import Pixels, Tensor
from ..runtimes.preprocess import to_pixels
from .augment import Augment, augment_pixels, generator, mix_batch
from .cache import DiskCache, PixelCache, variant_of
from .dataset import Dataset

TOLERANCE: Final = 0.01
"""The share of images that may be unreadable, where nothing else is said."""

# Of those that are being decoded while one is computed with.
_BATCHES_AHEAD: Final = 2
_LISTED: Final = 5

Work: TypeAlias = "list[tuple[int, Path | NDArray[np.uint8]]]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A batch.

    Attributes:
        indices: Places in the data set, shape (B,).
        images: Shape (B, C, H, W) float32, or (B, H, W, C) uint8 where they are not normalised.
        labels: Shape (B,) int64; where they were mixed (B, classes) float32, probabilities.
    """

    indices: NDArray[np.int64]
    images: Tensor | Pixels
    labels: NDArray[np.int64] | NDArray[np.float32]


class Loader:
    """One pass over a data set.

    The batches depend on the arguments only, not on the number or kind of workers. An image that
    cannot be read is left out of its batch and listed in ``unreadable``.
    """

    def __init__(
        self,
        dataset: Dataset,
        preprocess: Preprocess,
        *,
        batch: int,
        seed: int = 0,
        epoch: int = 0,
        augment: Augment | None = None,
        workers: int | Executor = 2,
        cache: PixelCache | None = None,
        rank: int = 0,
        world: int = 1,
        shuffle: bool = True,
        drop_last: bool | None = None,
        size: tuple[int, int] | None = None,
        normalize: bool = True,
        tolerance: float = TOLERANCE,
    ) -> None:
        """Prepare a pass; nothing is read yet but, where the size depends on it, one image.

        Args:
            dataset: What to read.
            preprocess: How.
            batch: Images of one batch, per process.
            seed: Chooses the order and the augmentation, with ``epoch``.
            epoch: Number of the pass.
            augment: Random changes; None for evaluation.
            workers: Threads, made for the pass; or a pool that outlives it, of threads or, by
                ``process_pool``, of processes.
            cache: Keeps what was decoded. With processes only one on disk.
            rank: This process's number among ``world``, which share the pass: together their
                batches k are the batch k of one process with ``world * batch`` images.
            world: How many processes there are.
            shuffle: Whether the order is random; else it is the data set's.
            drop_last: Whether images that fill no batch of all processes are left out; by default
                where the order is random.
            size: (height, width) of the model's input, where it is fixed.
            normalize: Whether images become float32 (C, H, W), or stay pixels (H, W, C).
            tolerance: The share of the images that may be unreadable.

        Raises:
            DataError: No batch can be filled.
            ImageError: The size depends on the images, and the first cannot be read.
            ValueError: The arguments do not belong together.
        """
        if batch < 1 or not 0 <= rank < world or (isinstance(workers, int) and workers < 1):
            raise ValueError(f"found batch {batch}, rank {rank} of {world}, {workers} workers")
        if isinstance(workers, ProcessPoolExecutor) and not isinstance(
            cache, (DiskCache, type(None))
        ):
            raise ValueError("processes share no memory: a cache for them must be on disk")
        if augment is not None and augment.mixes and not normalize:
            raise ValueError("mixed images are no pixels: mixup and cutmix need normalize")
        self.dataset = dataset
        self.preprocess = preprocess
        self.batch = batch
        self.workers = workers
        self.normalize = normalize
        self.unreadable: list[tuple[str, str]] = []
        """Name and reason of what could not be read, in the last pass."""
        order = np.arange(len(dataset), dtype=np.int64)
        if shuffle:
            order = generator("order", seed, epoch).permutation(order)
        if shuffle if drop_last is None else drop_last:
            order = order[: len(order) // (batch * world) * (batch * world)]
            if not len(order):
                raise DataError(
                    f"{dataset.name}: {len(dataset)} images do not fill a batch of "
                    f"{batch * world}; lower the batch size"
                )
        self.indices = order[rank::world]
        self._allowed = math.floor(tolerance * len(self.indices))
        self._key = (seed, epoch, rank)
        self._world = world
        self._augment = augment or Augment()
        shape = size or preprocess.output_size or _size_of(dataset, preprocess)
        self._recipe = _Recipe(
            preprocess=preprocess, augment=self._augment, seed=seed, epoch=epoch, size=shape,
            cache=cache,
        )  # fmt: skip

    def __len__(self) -> int:
        """Return how many batches there are."""
        return -(-len(self.indices) // self.batch)

    def __iter__(self) -> Iterator[tuple[Tensor | Pixels, NDArray[Any]]]:
        """Yield images and labels; see ``Loaded``."""
        for loaded in self.batches():
            yield loaded.images, loaded.labels

    def batches(self) -> Generator[Loaded, None, None]:
        """Yield the batches; closing the generator stops its threads.

        Raises:
            DataError: More images are unreadable than may be.
        """
        self.unreadable = []
        starts = range(0, len(self.indices), self.batch)
        chunks = [self.indices[start : start + self.batch] for start in starts]
        if self._plain:
            assert self.dataset.pixels is not None
            for chosen in chunks:
                yield self._finished(chosen, self._normalized(self.dataset.pixels[chosen]))
            return
        with contextlib.ExitStack() as stack:
            pool, share = self._pool(stack)
            waiting: deque[_Batch] = deque()
            stack.callback(lambda: [future.cancel() for b in waiting for future in b.futures])
            ahead = iter(chunks)
            for chosen in ahead:
                waiting.append(self._submit(pool, share, chosen))
                if len(waiting) > _BATCHES_AHEAD:
                    break
            while waiting:
                started = waiting.popleft()
                loaded = self._collect(started)
                following = next(ahead, None)
                if following is not None:
                    waiting.append(self._submit(pool, share, following))
                if loaded is not None:
                    yield loaded

    @property
    def _plain(self) -> bool:
        """Whether the pixels in memory are the model's, as they are."""
        pixels, preprocess = self.dataset.pixels, self.preprocess
        if pixels is None or self._augment.changes_images:
            return False
        height, width, channels = pixels.shape[1:]
        resize = preprocess.resize
        return (
            self._recipe.size == (height, width)
            and (resize in (0, (height, width)) or resize == min(height, width))
            and preprocess.crop in (0, (height, width), height if height == width else 0)
            and (preprocess.color, channels) in {("rgb", 3), ("gray", 1)}
        )

    def _pool(self, stack: contextlib.ExitStack) -> tuple[Executor, int]:
        """Return the pool, and how many images are one piece of its work."""
        if isinstance(self.workers, Executor):
            count = int(getattr(self.workers, "_max_workers", 2))
            return self.workers, max(1, self.batch // (2 * count))
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="edgecls-load")
        stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        return pool, max(1, self.batch // (2 * self.workers))

    def _submit(self, pool: Executor, share: int, chosen: NDArray[np.int64]) -> _Batch:
        work: Work = [(index, self.dataset.source(index)) for index in chosen.tolist()]
        parts = [work[start : start + share] for start in range(0, len(work), share)]
        height, width = self._recipe.size
        channels = self.preprocess.channels
        if self.normalize:
            out: Any = np.empty((len(work), channels, height, width), np.float32)
        else:
            out = np.empty((len(work), height, width, channels), np.uint8)
        futures: list[Future[Any]] = []
        start = 0
        for part in parts:
            if isinstance(pool, ProcessPoolExecutor):
                futures.append(pool.submit(_read_all, self._recipe, part))
            else:
                place = out[start : start + len(part)]
                futures.append(pool.submit(self._read_into, part, place))
            start += len(part)
        return _Batch(chosen=chosen, out=out, futures=futures, share=share)

    def _read_into(self, part: Work, place: Any) -> list[ImageError | None]:
        """Write what is read where it belongs; in a thread."""
        errors: list[ImageError | None] = []
        for row, (index, source) in enumerate(part):
            found = _attempt(self._recipe, index, source)
            if isinstance(found, ImageError):
                errors.append(found)
            else:
                self._write(found, place[row])
                errors.append(None)
        return errors

    def _write(self, pixels: Pixels, place: Any) -> None:
        if self.normalize:
            self.preprocess.normalize(pixels[None], out=place[None])
        else:
            place[...] = pixels

    def _collect(self, started: _Batch) -> Loaded | None:
        """Wait for a batch; None where nothing of it could be read."""
        errors: list[ImageError | None] = []
        for number, future in enumerate(started.futures):
            results = future.result()
            for row, result in enumerate(results):
                if isinstance(result, np.ndarray):
                    self._write(result, started.out[number * started.share + row])
            errors += [None if isinstance(result, np.ndarray) else result for result in results]
        good = np.asarray([error is None for error in errors])
        if good.all():
            return self._finished(started.chosen, started.out)
        for index, error in zip(started.chosen.tolist(), errors, strict=True):
            if error is not None:
                self.unreadable.append((self.dataset.name_of(index), error.reason))
        if len(self.unreadable) > self._allowed:
            listed = "; ".join(f"{name}: {why}" for name, why in self.unreadable[:_LISTED])
            raise DataError(
                f"{self.dataset.name}: {len(self.unreadable)} images cannot be read, at most "
                f"{self._allowed} of {len(self.indices)} may be left out: {listed}; "
                "`edgecls data` lists all"
            )
        if not good.any():
            if self._world > 1:
                raise DataError(
                    f"{self.dataset.name}: no image of a batch can be read, which the other "
                    f"processes have: {self.unreadable[-1][0]}: {self.unreadable[-1][1]}"
                )
            return None
        return self._finished(started.chosen[good], started.out[good])

    def _normalized(self, pixels: Pixels) -> Tensor | Pixels:
        return self.preprocess.normalize(pixels) if self.normalize else pixels

    def _finished(self, chosen: NDArray[np.int64], images: Tensor | Pixels) -> Loaded:
        labels = self.dataset.labels[chosen]
        if not self._augment.mixes:
            return Loaded(indices=chosen, images=images, labels=labels)
        draw = generator("mix", *self._key, int(chosen[0]))
        count = len(self.dataset.classes)
        assert images.dtype == np.float32
        mixed, soft = mix_batch(images, labels, count, self._augment, draw)  # type: ignore[arg-type]
        return Loaded(indices=chosen, images=mixed, labels=soft)


def process_pool(workers: int) -> ProcessPoolExecutor:
    """Return a pool of processes for ``Loader``, to be closed by the caller.

    They are started afresh, not forked: a fork of a process that has threads may hang.
    """
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recipe:
    """What a worker needs to know beside the image."""

    preprocess: Preprocess
    augment: Augment
    seed: int
    epoch: int
    size: tuple[int, int]
    cache: PixelCache | None


@dataclass(slots=True, kw_only=True)
class _Batch:
    chosen: NDArray[np.int64]
    out: Any
    futures: list[Future[Any]]
    share: int


def _read_all(recipe: _Recipe, part: Work) -> list[Pixels | ImageError]:
    """Read images; in another process."""
    return [_attempt(recipe, index, source) for index, source in part]


def _attempt(recipe: _Recipe, index: int, source: Path | NDArray[np.uint8]) -> Pixels | ImageError:
    try:
        return _read(recipe, index, source)
    except ImageError as error:
        return error


def _read(recipe: _Recipe, index: int, source: Path | NDArray[np.uint8]) -> Pixels:
    augment, preprocess = recipe.augment, recipe.preprocess
    reading = augment.reading(preprocess)
    name = str(source) if isinstance(source, Path) else f"image {index}"
    if isinstance(source, Path) and recipe.cache is not None:
        pixels = recipe.cache.fetch(
            name, variant_of(reading), lambda data: to_pixels(data, reading, name=name)
        )
    else:
        pixels = to_pixels(source, reading, name=name)
    if augment.changes_images:
        draw = generator("image", recipe.seed, recipe.epoch, index)
        pixels = augment_pixels(pixels, augment, preprocess, draw)
    if pixels.shape[:2] != recipe.size:
        height, width = recipe.size
        raise ImageError(
            name,
            f"{pixels.shape[1]}x{pixels.shape[0]} px after preprocessing, expected "
            f"{width}x{height} px; give a preprocessing that resizes or crops",
        )
    return pixels


def _size_of(dataset: Dataset, preprocess: Preprocess) -> tuple[int, int]:
    """Return the size that the first image that can be read has."""
    for index in range(len(dataset)):
        try:
            height, width = to_pixels(dataset.source(index), preprocess).shape[:2]
        except ImageError:
            if index + 1 == len(dataset):
                raise
            continue
        return height, width
    raise DataError(f"{dataset.name}: no images in it")
