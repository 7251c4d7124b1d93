"""The float graph and its simulations answer to images that did not calibrate them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Generic, TypeVar

from ..calibration.placement import QuantizedGraph
from ..core.errors import DataError
from ..core.progress import Progress
from ..core.values import Tensor
from ..data.images import ImageFile
from ..data.stream import stream_pixels
from ..data.truth import Truth
from ..drift.candidates import Record, record
from .calibrate import FloatModel
from .graph import OnnxRunner

Key = TypeVar("Key")

_BATCH: Final = 8
_MAX_LANES: Final = 8
_FEWEST: Final = 2  # of one image no interval can be told


class Judge(Generic[Key]):
    """Shows the judging images to the float graph and to every simulation, once.

    Attributes:
        records: Of each simulation, in batches.
        float_records: Of the float graph beside itself: its accuracy.
        images: How many were judged on.
        overlap: How many were left out because they had calibrated.
        unreadable: How many could not be read.
    """

    def __init__(
        self,
        model: FloatModel,
        graphs: Mapping[Key, QuantizedGraph],
        truth: Truth | None,
    ) -> None:
        self._model = model
        self._truth = truth
        self._float = OnnxRunner(model.graph, threads=1)
        # Simulations run side by side, each on one thread: the unoptimised graphs gain little from
        # more, and no answer depends on the number of cores.
        self._runners = {key: OnnxRunner(graph.model, threads=1) for key, graph in graphs.items()}
        self.records: dict[Key, list[Record]] = {key: [] for key in graphs}
        self.float_records: list[Record] = []
        self.images = self.overlap = self.unreadable = 0

    def run(self, judging: Sequence[ImageFile], known: frozenset[str], progress: Progress) -> None:
        """Judge on all images but those whose hashes are known.

        Raises:
            DataError: Fewer than two are left.
        """
        model = self._model
        stream = stream_pixels(judging, model.preprocess, size=model.size, batch=_BATCH)
        with ThreadPoolExecutor(min(len(os.sched_getaffinity(0)), _MAX_LANES)) as pool:
            for batch in progress.track(stream, "judging", -(-len(judging) // _BATCH)):
                self.unreadable += len(batch.errors)
                for image, error in batch.errors:
                    progress.note(f"the comparison left out {image.name}: {error.reason}")
                kept = [place for place, digest in enumerate(batch.hashes) if digest not in known]
                self.overlap += len(batch.hashes) - len(kept)
                if kept:
                    images = [batch.images[place] for place in kept]
                    self._answer(images, model.preprocess.normalize(batch.stack()[kept]), pool)
        if self.overlap:
            progress.note(f"{self.overlap} of the judging images have calibrated: left out")
        if self.images < _FEWEST:
            raise DataError(
                f"of {len(judging)} images {self.images} are left to judge, expected {_FEWEST} or "
                f"more: {self.overlap} have calibrated, {self.unreadable} cannot be read; "
                "give --against other images"
            )

    def _answer(
        self, images: Sequence[ImageFile], tensors: Tensor, pool: ThreadPoolExecutor
    ) -> None:
        names = [image.name for image in images]
        right = None if self._truth is None else self._truth.of(images)
        expected = self._float(tensors)
        self.images += len(images)
        self.float_records.append(record(names, expected, expected, right))
        answers = pool.map(lambda runner: runner(tensors), self._runners.values())
        for key, found in zip(self._runners, answers, strict=True):
            self.records[key].append(record(names, expected, found, right))
