"""One pass over the images shows every observer its tensor.

Images go through the graph one at a time on one thread each, several at once: so no image's values
depend on its neighbours or on the machine's number of cores, and memory does not grow with the
number of images. Each lane has observers of its own; they merge to the same counts in any order.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Final, Protocol, TypeAlias

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from ..core.errors import CalibrationError
from ..core.files import sha256_bytes
from ..core.ranges import DEFAULT_PERCENTILE, CalibrationMethod, RangeTable
from ..core.values import Logits, Tensor
from .observers import Observer, choose_range
from .placement.full import points

Item: TypeAlias = "tuple[str, Tensor]"

_MAX_LANES: Final = 8
# Observers look at several images of a small graph at once: fewer calls.
_LANE_BYTES: Final = 16 << 20
_MAX_SLOTS: Final = 16


class LogitsSink(Protocol):
    """Takes the float model's answer to each image; never two at a time, in any order."""

    def __call__(self, logits: Logits) -> None:
        """Take logits of shape (1, classes)."""
        ...


class ExtremesSink(Protocol):
    """Takes each tensor's extremes in each image; never two at a time, in any order."""

    def __call__(self, image: str, lo: NDArray[np.float32], hi: NDArray[np.float32]) -> None:
        """Take the image's hash and, in the order of the observers, shape (tensors,) each."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Observations:
    """What was seen.

    Attributes:
        observers: By tensor, the graph's input first, then in the graph's order.
        images: The images' hashes, sorted.
        model_sha256: Of the graph, see ``model_hash``.
    """

    observers: dict[str, Observer]
    images: tuple[str, ...]
    model_sha256: str


def collect_ranges(
    model: onnx.ModelProto,
    images: Iterable[Item],
    *,
    method: CalibrationMethod,
    seed: int,
    percentile: float = DEFAULT_PERCENTILE,
    on_logits: LogitsSink | None = None,
) -> RangeTable:
    """Observe a graph and return the range of each point.

    A graph with Q/DQ runs as it is written: the ranges are those of the quantized network.

    Args:
        model: See ``observe``, as ``images`` and ``on_logits``.
        images: As there.
        method: How a range is chosen.
        seed: What chose the images; kept as provenance.
        percentile: What the percentile method keeps.
        on_logits: As there.

    Raises:
        CalibrationError: As ``observe``.
    """
    seen = observe(model, images, on_logits=on_logits)
    return choose_ranges(seen, method=method, seed=seed, percentile=percentile)


def choose_ranges(
    seen: Observations,
    *,
    method: CalibrationMethod,
    seed: int,
    percentile: float = DEFAULT_PERCENTILE,
) -> RangeTable:
    """Return the range of each point by one method; every method reads the same observations."""
    return RangeTable(
        ranges={
            name: choose_range(observer, method, percentile)
            for name, observer in seen.observers.items()
        },
        model_sha256=seen.model_sha256,
        data_sha256=data_hash(seen.images),
        method=method,
        images=len(seen.images),
        seed=seed,
        percentile=percentile if method == "percentile" else None,
    )


def observe(
    model: onnx.ModelProto,
    images: Iterable[Item],
    *,
    on_logits: LogitsSink | None = None,
    on_extremes: ExtremesSink | None = None,
    lanes: int | None = None,
) -> Observations:
    """Run the float graph over images and return what each point's values were.

    Neither the images' order nor ``lanes`` changes the result.

    Args:
        model: A graph with one float32 input (batch, channels, height, width), types of all its
            values known.
        images: (sha256 of the file, tensor of shape (1, C, H, W)), normalised.
        on_logits: Called with the logits of each image.
        on_extremes: Called with the extremes of each image.
        lanes: Images that are computed at once; None is one per core, at most 8.

    Raises:
        CalibrationError: There is no image, or the graph gives a NaN or an infinity.
    """
    names = observed_names(model)
    graph = _Graph(model, names)
    count = lanes or min(len(os.sched_getaffinity(0)), _MAX_LANES)
    every = [_Lane(graph, on_logits, on_extremes) for _ in range(count)]
    idle: queue.SimpleQueue[_Lane] = queue.SimpleQueue()
    for lane in every:
        idle.put(lane)

    def take(items: list[Item]) -> None:
        lane = idle.get()
        try:
            lane.take(items)
        finally:
            idle.put(lane)

    ahead = iter(images)
    first = next(ahead, None)
    if first is None:
        raise CalibrationError("no image to calibrate with")
    hashes = [first[0]]
    arrays = graph.measure(first[1])
    every[0].observe([first[0]], {name: array[None] for name, array in arrays.items()})
    with contextlib.ExitStack() as stack:
        pool = ThreadPoolExecutor(count, thread_name_prefix="edgecls-observe")
        stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        waiting: deque[Future[None]] = deque()
        while items := list(islice(ahead, graph.slots)):
            hashes += [digest for digest, _ in items]
            if len(waiting) > count:
                waiting.popleft().result()
            waiting.append(pool.submit(take, items))
        for future in waiting:
            future.result()
    return Observations(
        observers=merge_observers([lane.observers for lane in every]),
        images=tuple(sorted(hashes)),
        model_sha256=graph.sha256,
    )


def merge_observers(parts: Sequence[dict[str, Observer]]) -> dict[str, Observer]:
    """Return the observers of all parts' values; each part has one for each tensor."""
    merged = parts[0]
    for part in parts[1:]:
        merged = {name: observer.merge(part[name]) for name, observer in merged.items()}
    return merged


def observed_names(model: onnx.ModelProto) -> list[str]:
    """Return the names of the graph's input and of all else that a scheme may quantize."""
    return [str(value.name) for value in points(ir.from_proto(model))]


def model_hash(model: onnx.ModelProto) -> str:
    """Return what says whether a table belongs to a graph."""
    return sha256_bytes(_serialized(model))


def _serialized(model: onnx.ModelProto) -> bytes:
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def data_hash(images: Sequence[str]) -> str:
    """Return the hash of a set of images from their own hashes, in any order."""
    return hashlib.sha256("".join(sorted(images)).encode()).hexdigest()


class _Graph:
    """A session whose outputs are all points, shared by the lanes.

    Attributes:
        names: The input, then every point.
        output: The logits' name.
        fetched: What a run gives: every point but the input, and the logits.
        sha256: See ``model_hash``.
        shapes: Of each, for one image; known after ``measure``.
        slots: How many images a lane takes at once; known then too.
        sinks: Held by the lane that hands something on.
    """

    def __init__(self, model: onnx.ModelProto, names: list[str]) -> None:
        data = _serialized(model)
        self.sha256 = sha256_bytes(data)
        kept = {output.name for output in model.graph.output}
        infos = {value.name: value for value in model.graph.value_info}
        self.names = names
        self.output = model.graph.output[0].name
        # Serialized messages in a row are one: these outputs follow the graph's own.
        more = onnx.ModelProto()
        more.graph.output.extend(infos[name] for name in names[1:] if name not in kept)
        data += more.SerializeToString()
        self.fetched = list(dict.fromkeys([*names[1:], self.output]))
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
            # Fused int8 kernels round differently, and take values away that are observed.
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        self.session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.slots = 1
        self.sinks = threading.Lock()

    def measure(self, tensor: Tensor) -> dict[str, NDArray[np.float32]]:
        """Return each point's values on an image; learn their shapes."""
        found = self.session.run(self.fetched, {self.names[0]: tensor})
        arrays = dict(zip([self.names[0], *self.fetched], [tensor, *found], strict=True))
        self.shapes = {name: array.shape for name, array in arrays.items()}
        size = sum(int(array.nbytes) for array in arrays.values())
        self.slots = max(1, min(_MAX_SLOTS, _LANE_BYTES // size))
        return arrays


class _Lane:
    """Runs images one after the other into buffers of its own, then observes them together."""

    def __init__(
        self, graph: _Graph, on_logits: LogitsSink | None, on_extremes: ExtremesSink | None
    ) -> None:
        self.observers = {name: Observer() for name in graph.names}
        self._graph = graph
        self._on_logits = on_logits
        self._on_extremes = on_extremes
        self._buffers: dict[str, NDArray[np.float32]] = {}
        self._bindings: list[ort.IOBinding] = []

    def take(self, items: list[Item]) -> None:
        """Run and observe images.

        Raises:
            CalibrationError: A tensor holds a NaN or an infinity.
        """
        graph = self._graph
        if len(self._bindings) < len(items):
            self._add_slots(len(items))
        for (_, tensor), binding, slot in zip(
            items, self._bindings, self._buffers[graph.names[0]], strict=False
        ):
            slot[...] = tensor
            graph.session.run_with_iobinding(binding)
        self.observe([digest for digest, _ in items], self._buffers)

    def observe(self, images: list[str], found: dict[str, NDArray[np.float32]]) -> None:
        """Observe what was computed.

        Args:
            images: Their hashes.
            found: By tensor, shape (images or more, ...).

        Raises:
            CalibrationError: A tensor holds a NaN or an infinity.
        """
        count, lows, highs = len(images), [], []
        for name, observer in self.observers.items():
            lo, hi = observer.update(found[name][:count].reshape(count, -1))
            bad = ~(np.isfinite(lo) & np.isfinite(hi))
            if bad.any():
                raise CalibrationError(
                    f"tensor {name!r} holds a NaN or an infinity on the calibration image with "
                    f"sha256 {images[int(bad.argmax())][:16]}"
                )
            lows.append(lo)
            highs.append(hi)
        with self._graph.sinks:
            for index, digest in enumerate(images):
                if self._on_logits is not None:
                    self._on_logits(found[self._graph.output][index])
                if self._on_extremes is not None:
                    self._on_extremes(
                        digest,
                        np.array([lo[index] for lo in lows]),
                        np.array([hi[index] for hi in highs]),
                    )

    def _add_slots(self, count: int) -> None:
        graph = self._graph
        self._buffers = {
            name: np.empty((count, *shape), np.float32) for name, shape in graph.shapes.items()
        }
        self._bindings = []
        for index in range(count):
            binding = graph.session.io_binding()
            for name in graph.shapes:
                slot = self._buffers[name][index]
                bind = binding.bind_input if name == graph.names[0] else binding.bind_output
                bind(name, "cpu", 0, np.float32, slot.shape, slot.ctypes.data)
            self._bindings.append(binding)
