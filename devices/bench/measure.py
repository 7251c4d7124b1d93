"""Measures a bundle in several fresh processes, one after the other."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final, TypeVar

import msgspec

from ...core.errors import BadInputError, MissingError
from ...core.files import sha256_bytes
from ...core.progress import Progress, Quiet
from ...core.version import VERSION
from ...runtimes import Predictor
from ...runtimes.engine_options import DEFAULT, EngineOptions
from ...targets.target import BackendName
from .health import energy_j, ranges, reasons_against, watched
from .machine import describe, emulated
from .process import START, ColdStart, Memory, Process, Task, images_of
from .result import BenchResult, Times

S = TypeVar("S", ColdStart, Memory)

_GPU: Final = ("onnxruntime-cuda", "tensorrt", "tensorrt-rtx")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to measure.

    Attributes:
        processes: Fresh ones, one after the other.
        runs: Measured batches of each.
        warmup: Batches before them.
        batch: Images at once.
        backend: That the user asked for.
        allow_fallback: Whether a simulation may take its place.
        engine: How a TensorRT engine is built and run.
    """

    processes: int = 5
    runs: int = 100
    warmup: int = 10
    batch: int = 1
    backend: BackendName | None = None
    allow_fallback: bool = False
    engine: EngineOptions = DEFAULT


def bench(
    predictor: Predictor,
    images: Sequence[str],
    options: Options,
    progress: Progress | None = None,
) -> BenchResult:
    """Measure what a loaded bundle takes, in processes of its own.

    The predictor answers once to every image first: what cannot be read or loaded shows itself, an
    engine is built, and files are in the system's cache for every process alike.

    Args:
        predictor: What is to be measured; closed here, so that a GPU's memory is free.
        images: Paths; without any, the bundle's golden samples. They go round.
        options: See there.
        progress: Shows the processes.

    Raises:
        BadInputError: There is no image.
        ImageError: One cannot be used.
        MissingError: A process ended without an answer.
    """
    bundle = predictor.bundle
    sources = images_of(bundle, images)
    if not sources:
        raise BadInputError(f"{bundle.path}: it has no golden samples; give images")
    for source in sources:
        predictor.predict(source)
    predictor.close()
    gpu, virtual = predictor.backend in _GPU, emulated()
    task = Task(
        bundle=str(bundle.path), images=tuple(images), runs=options.runs, warmup=options.warmup,
        batch=options.batch, threads=predictor.threads, backend=options.backend,
        allow_fallback=options.allow_fallback, engine=options.engine, gpu=gpu, watch=not virtual,
        spawned_s=0.0,
    )  # fmt: skip
    shown = (progress or Quiet()).track(range(options.processes), "measuring", options.processes)
    processes = tuple(_measure(task) for _ in shown)
    readings = [process.readings for process in processes]
    pooled = {
        stage: [value for process in processes for value in process.runs_ms[stage]]
        for stage in processes[0].runs_ms
    }
    count = options.processes * options.runs * options.batch
    waiting = [process.waiting for process in processes if process.waiting is not None]
    return BenchResult(
        edgecls=VERSION,
        bundle_sha256=bundle.sha256,
        target=bundle.manifest.target,
        artefact=predictor.artefact.path,
        precision=predictor.precision,
        backend=predictor.backend,
        description=dict(predictor.description),
        fell_back=predictor.fell_back,
        problem=predictor.problem,
        threads=predictor.threads,
        batch=options.batch,
        runs=options.runs,
        warmup=options.warmup,
        images=len(sources),
        images_sha256=sha256_bytes(
            b"".join(
                sha256_bytes(one if isinstance(one, bytes) else one.read_bytes()).encode()
                for one in sources
            )
        ),
        stages={stage: Times.of(values) for stage, values in pooled.items()},
        per_s=median(process.stream_per_s for process in processes),
        cold_start=_medians(ColdStart, [process.cold_start for process in processes]),
        memory=_medians(Memory, [process.memory for process in processes]),
        clocks_mhz=ranges(readings, "clocks_mhz"),
        temperatures_c=ranges(readings, "temperatures_c"),
        energy_j={name: value / count for name, value in energy_j(readings).items()},
        watched=watched(readings),
        waiting=median(waiting) if waiting else None,
        emulated=virtual,
        invalid=reasons_against(readings, gpu=gpu),
        machine=describe(),
        processes=processes,
    )


def _measure(task: Task) -> Process:
    package = Path(__file__).parents[2]  # not resolved: its folder may be a link of that name
    asked = msgspec.structs.replace(task, spawned_s=time.monotonic())
    done = subprocess.run(
        [sys.executable, "-c", START, str(package.parent)], input=msgspec.json.encode(asked),
        capture_output=True, check=False,
    )  # fmt: skip
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["it says nothing"]
        raise MissingError(
            f"a measured process ended with exit code {done.returncode}: {said[-1]}; a negative "
            "code is a signal, -9 mostly means that memory ran out"
        )
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Process)


def _medians(kind: type[S], parts: Sequence[S]) -> S:
    """Return the median of each field."""
    found = {name: median(getattr(part, name) for part in parts) for name in kind.__struct_fields__}
    return msgspec.convert(
        {name: int(value) if kind is Memory else value for name, value in found.items()}, kind
    )
