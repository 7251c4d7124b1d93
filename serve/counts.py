"""What a server counts, in memory that all of its processes share."""

from __future__ import annotations

import itertools
import mmap
import threading
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..core.fingerprint import CONFIDENCE_BINS, PIXEL_BINS

Int64s = NDArray[np.int64]

STAGES: Final = ("decode", "preprocess", "queue", "inference", "postprocess")
SECONDS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
BATCHES: Final = (1, 2, 4, 8, 16, 32, 64)
IMAGES: Final = ("predicted", "unusable", "late")
PATHS: Final = (
    "/", "/static", "/v1/predict", "/v1/model", "/v1/field", "/healthz", "/readyz", "/metrics",
    "/openapi.json", "/v2", "other",
)  # fmt: skip
STATUSES: Final = (
    200, 304, 400, 401, 404, 405, 408, 413, 415, 422, 500, 503, 0,
)  # fmt: skip
RELOADS: Final = ("taken", "refused")

# Pages that nothing was written to take no memory: room for any classifier costs nothing.
MAX_CLASSES: Final = 1 << 20
MAX_CHANNELS: Final = 3

_HASH: Final = 4  # a SHA-256 in words

# Every field with its length. Those of the field's sketch begin with "field_".
_FIELDS: Final[dict[str, int]] = {
    "requests": len(PATHS) * len(STATUSES),
    "predict_seconds": len(SECONDS) + 1,
    "predict_seconds_us": 1,
    **{f"{stage}_seconds": len(SECONDS) + 1 for stage in STAGES},
    **{f"{stage}_seconds_us": 1 for stage in STAGES},
    "batches": len(BATCHES) + 1,
    "batched_images": 1,
    "images": len(IMAGES),
    "in_flight": 1,
    "reloads": len(RELOADS),
    "bundle": _HASH,
    "classes": 1,
    "field_images": 1,
    "field_pixels": MAX_CHANNELS * PIXEL_BINS,
    "field_confidence": CONFIDENCE_BINS,
    "field_classes": MAX_CLASSES,
}
_STARTS: Final = dict(zip(_FIELDS, itertools.accumulate(_FIELDS.values(), initial=0), strict=False))
_LENGTH: Final = sum(_FIELDS.values())
_EDGES: Final[dict[str, NDArray[Any]]] = {
    "predict_seconds": np.asarray(SECONDS),
    **{f"{stage}_seconds": np.asarray(SECONDS) for stage in STAGES},
    "batches": np.asarray(BATCHES),
}


class Counts:
    """A row of int64 counters per process; each writes its own, all read all.

    A process that ends leaves its row, and the one that takes its place goes on with it: no count
    ever falls but for the gauges, which ``start`` clears, and the sketch, which starts with a
    bundle.

    Attributes:
        workers: How many rows there are.
        bundle: Hash of the one that this process runs.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._memory = mmap.mmap(-1, workers * _LENGTH * 8)
        self._rows: Int64s = np.frombuffer(self._memory, np.int64).reshape(workers, _LENGTH)
        self._row = self._rows[0]
        self._lock = threading.Lock()
        self.bundle = ""

    def start(self, worker: int) -> None:
        """Write to the row of process ``worker``, 0 to ``workers`` - 1, from here on."""
        self._row = self._rows[worker]
        self._of("in_flight")[:] = 0
        self.stop()

    def stop(self) -> None:
        """Say that this process runs no bundle."""
        self._of("bundle")[:] = 0

    def add(self, name: str, amount: int | Int64s = 1, at: int | slice = 0) -> None:
        """Add to one counter of a field, or to several side by side."""
        with self._lock:
            self._of(name)[at] += amount

    def put(self, name: str, value: int) -> None:
        """Set a gauge."""
        self._of(name)[0] = value

    def observe_seconds(self, name: str, seconds: float) -> None:
        """Count a time in the histogram of that name."""
        at = int(np.searchsorted(_EDGES[name], seconds))
        with self._lock:
            self._of(name)[at] += 1
            self._of(f"{name}_us")[0] += round(seconds * 1e6)

    def observe_batch(self, images: int) -> None:
        """Count a batch."""
        at = int(np.searchsorted(_EDGES["batches"], images))
        with self._lock:
            self._of("batches")[at] += 1
            self._of("batched_images")[0] += images

    def add_request(self, path: str, status: int) -> None:
        """Count an answer; a status that is not listed counts as 0."""
        known = status if status in STATUSES else 0
        self.add("requests", at=PATHS.index(path) * len(STATUSES) + STATUSES.index(known))

    def run_bundle(self, sha256: str, classes: int) -> None:
        """Say which bundle this process runs from now on; its sketch starts with it."""
        with self._lock:
            begin = _STARTS["field_images"]
            end = _STARTS["field_classes"] + int(self._of("classes")[0])
            self._row[begin:end] = 0  # no further: what is touched takes memory
            self._of("classes")[0] = classes
            self.bundle = sha256
            self._of("bundle")[:] = np.frombuffer(bytes.fromhex(sha256), np.int64)

    def bundles(self) -> list[str | None]:
        """Return each process's bundle; None where it has none yet."""
        found: list[str | None] = []
        for row in self._rows:
            words = self._of("bundle", row)
            found.append(words.tobytes().hex() if words.any() else None)
        return found

    def total(
        self, name: str, *, length: int | None = None, bundle: str | None = None
    ) -> list[int]:
        """Return a field's counters, or its first ``length``, over all processes.

        Args:
            name: The field's.
            length: How many of its counters.
            bundle: Only of processes that run it.
        """
        running = self.bundles()
        total = np.zeros(length or _FIELDS[name], np.int64)
        for row, runs in zip(self._rows, running, strict=True):
            if bundle is None or runs == bundle:
                total += self._of(name, row)[: len(total)]
        return [int(value) for value in total]

    def _of(self, name: str, row: Int64s | None = None) -> Int64s:
        start = _STARTS[name]
        return (self._row if row is None else row)[start : start + _FIELDS[name]]
