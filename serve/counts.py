"""What a server counts, in memory that all of its processes share."""

from __future__ import annotations

import itertools
import mmap
import struct
import threading
from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

from ..core.fingerprint import CONFIDENCE_BINS, PIXEL_BINS

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
    200, 304, 400, 401, 403, 404, 405, 408, 413, 415, 422, 500, 503, 0,
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
    "connections": 1,  # and one more where the process takes any
    "reloads": len(RELOADS),
    "bundle": _HASH,
    "sketched": _HASH,  # which bundle's images the sketch is of
    "classes": 1,
    "field_images": 1,
    "field_pixels": MAX_CHANNELS * PIXEL_BINS,
    "field_confidence": CONFIDENCE_BINS,
    "field_classes": MAX_CLASSES,
}
_STARTS: Final = dict(zip(_FIELDS, itertools.accumulate(_FIELDS.values(), initial=0), strict=False))
_LENGTH: Final = sum(_FIELDS.values())


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
        self._cells = memoryview(mmap.mmap(-1, workers * _LENGTH * 8)).cast("q")
        self._row = 0
        self._lock = threading.Lock()
        self.bundle = ""

    def start(self, worker: int) -> None:
        """Write to the row of process ``worker``, 0 to ``workers`` - 1, from here on."""
        self._row = worker
        self.put("in_flight", 0)
        self.put("connections", 0)
        self.stop()

    def stop(self) -> None:
        """Say that this process runs no bundle."""
        self._write("bundle", (0,) * _HASH)

    def add(self, name: str, amount: int = 1, at: int = 0) -> None:
        """Add to a counter of a field."""
        cell = self._start(name) + at
        with self._lock:
            self._cells[cell] += amount

    def add_all(self, name: str, amounts: Sequence[int]) -> None:
        """Add to the first counters of a field."""
        start = self._start(name)
        with self._lock:
            for cell, amount in enumerate(amounts, start):
                self._cells[cell] += amount

    def put(self, name: str, value: int) -> None:
        """Set a gauge."""
        self._cells[self._start(name)] = value

    def put_connections(self, open_now: int) -> None:
        """Say how many connections this process has, which makes it one that takes any."""
        self.put("connections", open_now + 1)

    def fewest_connections(self) -> int:
        """Return how many the process has that has the fewest of all that take any."""
        every = (self._read("connections", row)[0] for row in range(self.workers))
        return min((each - 1 for each in every if each), default=0)

    def observe_seconds(self, name: str, seconds: float) -> None:
        """Count a time in the histogram of that name."""
        self.add(name, at=bisect_left(SECONDS, seconds))
        self.add(f"{name}_us", round(seconds * 1e6))

    def observe_batch(self, images: int) -> None:
        """Count a batch."""
        self.add("batches", at=bisect_left(BATCHES, images))
        self.add("batched_images", images)

    def add_request(self, path: str, status: int) -> None:
        """Count an answer; a status that is not listed counts as 0."""
        known = status if status in STATUSES else 0
        self.add("requests", at=PATHS.index(path) * len(STATUSES) + STATUSES.index(known))

    def run_bundle(self, sha256: str, classes: int) -> None:
        """Say which bundle this process runs from now on; its sketch starts with it.

        A process that takes the place of one with the same bundle goes on with its sketch.
        """
        words = struct.unpack(f"={_HASH}q", bytes.fromhex(sha256))
        with self._lock:
            self.bundle = sha256
            self._write("bundle", words)
            if self._read("sketched", self._row) == list(words):
                return
            (before,) = self._read("classes", self._row)
            begin, end = self._start("field_images"), self._start("field_classes") + before
            for cell in range(begin, end):  # no further: what is touched takes memory
                self._cells[cell] = 0
            self.put("classes", classes)
            self._write("sketched", words)

    def bundles(self) -> list[str | None]:
        """Return each process's bundle; None where it has none yet."""
        return self._hashes("bundle")

    def total(
        self, name: str, *, length: int | None = None, bundle: str | None = None
    ) -> list[int]:
        """Return a field's counters, or its first ``length``, over all processes.

        Args:
            name: The field's.
            length: How many of its counters.
            bundle: Only of rows whose sketch is of it, also where the process was ended since.
        """
        rows = [
            self._read(name, row, length)
            for row, seen in enumerate(self._hashes("sketched"))
            if bundle is None or seen == bundle
        ]
        return (
            [sum(column) for column in zip(*rows, strict=True)]
            if rows
            else ([0] * (length or _FIELDS[name]))
        )

    def _hashes(self, name: str) -> list[str | None]:
        found = (self._read(name, row) for row in range(self.workers))
        return [struct.pack(f"={_HASH}q", *words).hex() if any(words) else None for words in found]

    def _start(self, name: str) -> int:
        return self._row * _LENGTH + _STARTS[name]

    def _read(self, name: str, row: int, length: int | None = None) -> list[int]:
        start = row * _LENGTH + _STARTS[name]
        return self._cells[start : start + (length or _FIELDS[name])].tolist()

    def _write(self, name: str, values: Sequence[int]) -> None:
        for cell, value in enumerate(values, self._start(name)):
            self._cells[cell] = value
