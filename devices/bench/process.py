"""The measured process: begins, loads, predicts, and says on stdout what each took.

It is a fresh one each time, so that the start is a cold one and the memory is the bundle's alone.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from ...bundle import Bundle
from ...core.errors import ImageError
from ...runtimes.engine_options import EngineOptions
from ...targets.target import BackendName
from .reading import Reading, Sensor, read_all

if TYPE_CHECKING:
    from ...runtimes import Predictor

# What a process runs first: no module of ours is imported before its time is taken.
START: Final = """\
import time
moments = [time.monotonic()]
import sys
if sys.path[0] == "":
    del sys.path[0]  # the current folder, which may be a checkout
sys.path.append(sys.argv[1])
def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
memory = [peak()]
moments.append(time.monotonic())
from edgecls import load
moments.append(time.monotonic())
memory.append(peak())
from edgecls.devices.bench.process import main
main(moments, memory, load, peak)
"""

_BETWEEN_READINGS_S: Final = 0.5


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure.

    Attributes:
        bundle: Its path.
        images: Paths; without any, the bundle's golden samples.
        runs: How often a batch is measured.
        warmup: How often one is predicted before.
        batch: Images at once.
        threads: For a CPU; None leaves it to the runtime.
        backend: That was asked for.
        allow_fallback: Whether a simulation may take its place.
        engine: How a TensorRT engine is built and run.
        gpu: Whether a GPU runs the model.
        watch: Whether there is a board to read.
        spawned_s: When the process was started, by the system's monotonic clock.
    """

    bundle: str
    images: tuple[str, ...]
    runs: int
    warmup: int
    batch: int
    threads: int | None
    backend: BackendName | None
    allow_fallback: bool
    engine: EngineOptions
    gpu: bool
    watch: bool
    spawned_s: float


class ColdStart(msgspec.Struct, frozen=True, kw_only=True):
    """From the start of a program to its first answer, in milliseconds.

    Attributes:
        python: Until the interpreter runs the program's first line.
        imports: ``from edgecls import load``.
        load: The bundle into the backend; an engine is built already.
        first: The first batch's predictions.
    """

    python: float
    imports: float
    load: float
    first: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.python + self.imports + self.load + self.first


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """The most memory that the process held (VmHWM), in bytes, until a moment.

    Attributes:
        python: The bare interpreter.
        imports: ``from edgecls import load``.
        load: The bundle is loaded.
        peak: The end, with every prediction.
    """

    python: int
    imports: int
    load: int
    peak: int


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """What one process took.

    Attributes:
        cold_start: See there.
        memory: See there.
        runs_ms: By stage, and "total" around it all: milliseconds of each batch, in order.
        stream_per_s: Images per second of ``predict_stream``, which decodes while another image
            runs; for a batch of several, of batches one after the other.
        waiting: The share of the measured time for which the process was ready and had no core
            (its main thread), 0..1; None where the system does not tell.
        readings: What the board told meanwhile.
    """

    cold_start: ColdStart
    memory: Memory
    runs_ms: dict[str, list[float]]
    stream_per_s: float
    waiting: float | None
    readings: tuple[Reading, ...]


def images_of(bundle: Bundle, images: Sequence[str]) -> list[Path | bytes]:
    """Return what is predicted: files, or the golden samples' bytes."""
    if images:
        return [Path(image) for image in images]
    return [bundle.read(sample.image) for sample in bundle.manifest.golden]


def main(moments: list[float], memory: list[int], load: object, peak: object) -> None:
    """Measure what stdin asks for, and print it.

    Args:
        moments: When Python ran, when the import began, when it was done.
        memory: The peak at Python's start, and after the import.
        load: ``edgecls.load``, as it was imported.
        peak: Gives the peak memory in bytes.
    """
    assert callable(load)
    assert callable(peak)
    task = msgspec.json.decode(sys.stdin.buffer.read(), type=Task)
    images = images_of(Bundle(Path(task.bundle)), task.images)
    chunks = _chunks(images, task.batch)
    first = next(chunks)
    started = time.monotonic()
    predictor = load(
        task.bundle, backend=task.backend, allow_fallback=task.allow_fallback,
        threads=task.threads, engine=task.engine,
    )  # fmt: skip
    loaded = time.monotonic()
    memory.append(peak())
    before = time.monotonic()
    _predict(predictor, first)
    answered = time.monotonic()
    for _ in range(task.warmup):
        _predict(predictor, next(chunks))
    if task.watch:
        from .sensors import open_sensors

        sensors = open_sensors(gpu=task.gpu)
    else:
        sensors = []
    found = _measure(predictor, images, task, sensors)
    cold = ColdStart(
        python=(moments[0] - task.spawned_s) * 1e3,
        imports=(moments[2] - moments[1]) * 1e3,
        load=(loaded - started) * 1e3,
        first=(answered - before) * 1e3,
    )
    runs_ms, stream_per_s, waiting, readings = found
    held = Memory(python=memory[0], imports=memory[1], load=memory[2], peak=peak())
    process = Process(
        cold_start=cold, memory=held, runs_ms=runs_ms, stream_per_s=stream_per_s, waiting=waiting,
        readings=tuple(readings),
    )  # fmt: skip
    # On a line of its own: a backend's library may have printed something.
    print("\n" + msgspec.json.encode(process).decode(), flush=True)


def _measure(
    predictor: Predictor, images: Sequence[Path | bytes], task: Task, sensors: Sequence[Sensor]
) -> tuple[dict[str, list[float]], float, float | None, list[Reading]]:
    """Return the runs in ms, images per second, the share of waiting, and the readings."""
    chunks = _chunks(images, task.batch)
    runs: dict[str, list[float]] = {}
    readings = [read_all(sensors, time.monotonic())]
    begun, waited = time.monotonic(), _waited_s()
    for _ in range(task.runs):
        chunk = next(chunks)
        start = time.perf_counter()
        speeds = _predict(predictor, chunk)
        total = (time.perf_counter() - start) * 1e3
        for stage in speeds[0]:
            taken = sum(speed[stage] for speed in speeds)
            runs.setdefault(stage, []).append(round(taken, 4))
        runs.setdefault("total", []).append(round(total, 4))
        now = time.monotonic()
        if now - readings[-1].at_s >= _BETWEEN_READINGS_S:
            readings.append(read_all(sensors, now))
    ended, waited_at_end = time.monotonic(), _waited_s()
    readings.append(read_all(sensors, ended))
    waiting = None
    if waited is not None and waited_at_end is not None:
        waiting = (waited_at_end - waited) / (ended - begun)
    if task.batch > 1:
        per_s = 1e3 * task.batch * task.runs / sum(runs["total"])
    else:
        endless = itertools.cycle(images)
        start = time.perf_counter()
        for answer in predictor.predict_stream(itertools.islice(endless, task.runs)):
            if isinstance(answer, ImageError):
                raise answer
        per_s = task.runs / (time.perf_counter() - start)
    return runs, per_s, waiting, readings


def _predict(predictor: Predictor, chunk: Sequence[Path | bytes]) -> list[dict[str, float]]:
    """Return the stages' milliseconds of each image."""
    if len(chunk) == 1:
        return [predictor.predict(chunk[0]).speed_ms]
    return [found.speed_ms for found in predictor.predict_batch(chunk)]


def _chunks(images: Sequence[Path | bytes], size: int) -> Iterator[list[Path | bytes]]:
    endless = itertools.cycle(images)
    while True:
        yield list(itertools.islice(endless, size))


def _waited_s() -> float | None:
    """Return for how long this thread was ready to run and did not, in seconds."""
    try:
        return int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return None
