"""The model of a process: one thread at a time runs it, on what it takes together."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.values import Logits, Tensor
from ..runtimes import Prediction
from ..runtimes.predictor import Prepared
from .counts import Counts
from .field import count_image
from .model import Model


@dataclass(slots=True, kw_only=True)
class Job(ABC):
    """What the lane is asked to run.

    Attributes:
        model: What runs it: the one that prepared it, even where another took its place since.
        deadline: On the clock ``time.monotonic``: whoever asked is gone then.
        answer: Holds what came of it.
        waiting_since: On the clock ``time.perf_counter``.
    """

    model: Model
    deadline: float
    answer: Future[Any]
    waiting_since: float = 0.0

    @abstractmethod
    def most(self, max_batch: int) -> int:
        """Return how many jobs like this one run together, of the ``max_batch`` allowed."""

    @abstractmethod
    def joins(self, first: Job) -> bool:
        """Whether it can run in one batch with another."""


@dataclass(slots=True, kw_only=True)
class ImageJob(Job):
    """One image.

    Attributes:
        image: Its pixels.
        topk: How many classes to answer.
        codes: Its pixels' histogram, as the fingerprint has it, flat.
    """

    image: Prepared
    topk: int
    codes: Sequence[int]

    def most(self, max_batch: int) -> int:
        """Return as many as the model takes."""
        return min(max_batch, self.model.predictor.max_batch or max_batch)

    def joins(self, first: Job) -> bool:
        """Whether both are images for the same model."""
        return isinstance(first, ImageJob) and first.model is self.model


@dataclass(slots=True, kw_only=True)
class TensorJob(Job):
    """Normalised images (N, C, H, W) that were asked for together, and run together."""

    tensor: Tensor

    def most(self, max_batch: int) -> int:
        """Return 1: several requests' tensors are not mixed, and none waits for images."""
        del max_batch
        return 1

    def joins(self, first: Job) -> bool:
        """Whether it is the other one."""
        return first is self


def pending(model: Model) -> Future[Any]:
    """Return what will hold the answer of a job for ``model``, which stays open until then.

    Whoever waits for it may go, but cannot call it off.
    """
    model.use()
    answer: Future[Any] = Future()
    answer.set_running_or_notify_cancel()
    return answer


class Lane:
    """Runs jobs in the order in which they are ready, images together where the model can.

    It has no thread of its own: whoever brings a job while nobody runs the model runs it, and what
    others bring meanwhile. To hand each to a thread that sleeps would cost more than some models.

    An image waits for others only while some are being decoded, and only where the model takes
    several at once: one that comes alone is run at once.
    """

    def __init__(self, counts: Counts, *, max_batch: int, max_wait_ms: float) -> None:
        self._counts = counts
        self._max_batch = max_batch
        self._max_wait_s = max_wait_ms / 1e3
        self._jobs: deque[Job] = deque()
        self._coming = 0
        self._running = False
        self._changed = threading.Condition()

    def expect(self, images: int) -> None:
        """Announce images: ``put`` or ``miss`` follows for each."""
        with self._changed:
            self._coming += images

    def miss(self) -> None:
        """Say that an image that was announced does not come."""
        with self._changed:
            self._coming -= 1
            self._changed.notify()

    def put(self, job: Job, *, expected: bool = False) -> None:
        """Run a job, and all that come meanwhile; or leave it to the thread that does already."""
        job.waiting_since = time.perf_counter()
        with self._changed:
            self._coming -= expected
            self._jobs.append(job)
            self._changed.notify()
            if self._running:
                return
            self._running = True
        while batch := self._next():
            self._run_batch(batch)

    def _run_batch(self, batch: Sequence[Job]) -> None:
        asked = time.monotonic()
        live = []
        for job in batch:
            if job.deadline > asked:
                live.append(job)
            else:
                job.answer.set_exception(TimeoutError())
        try:
            if live:
                self._run(live)
        except Exception as error:  # whatever it is, it is the answer to these, and no more
            for job in live:
                if not job.answer.done():
                    job.answer.set_exception(error)
        for job in batch:
            job.model.release()

    def _next(self) -> list[Job]:
        """Return what runs together next; nothing where none is left, and nobody runs then."""
        with self._changed:
            if not self._jobs:
                self._running = False
                return []
            first = self._jobs.popleft()
            batch = [first]
            most = first.most(self._max_batch)
            until = time.monotonic() + self._max_wait_s
            while len(batch) < most:
                if self._jobs:
                    if not self._jobs[0].joins(first):
                        break
                    batch.append(self._jobs.popleft())
                elif not self._coming or (left := until - time.monotonic()) <= 0:
                    break
                else:
                    self._changed.wait(left)
            return batch

    def _run(self, batch: Sequence[Job]) -> None:
        start = time.perf_counter()
        first = batch[0]
        if isinstance(first, TensorJob):
            found = first.model.predictor.logits_of_tensor(first.tensor)
            images = len(first.tensor)
        else:
            pixels = np.stack([job.image.pixels for job in batch if isinstance(job, ImageJob)])
            found = first.model.predictor.logits(pixels)
            images = len(batch)
        each_s = (time.perf_counter() - start) / max(images, 1)
        self._counts.observe_batch(images)
        if isinstance(first, TensorJob):
            first.answer.set_result(found)
            return
        for job, row in zip(batch, found, strict=True):
            assert isinstance(job, ImageJob)
            self._finish(job, row, start - job.waiting_since, each_s)

    def _finish(self, job: ImageJob, row: Logits, waited_s: float, each_s: float) -> None:
        speed = {"queue": waited_s * 1e3, "inference": each_s * 1e3}
        try:
            found = job.model.predictor.finish(job.image, row, speed, job.topk)
        except Exception as error:  # logits that are no numbers
            job.answer.set_exception(error)
            return
        self._count(job, found)
        job.answer.set_result(found)

    def _count(self, job: ImageJob, found: Prediction) -> None:
        counts = self._counts
        for stage, milliseconds in found.speed_ms.items():
            counts.observe_seconds(f"{stage}_seconds", milliseconds / 1e3)
        count_image(counts, job.model.sha256, job.codes, found)
