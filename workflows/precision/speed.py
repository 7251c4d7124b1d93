"""How long candidates take on this machine, where the target's own runtime is here."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import msgspec
import numpy as np
import onnx

from ...core.values import Logits, Precision
from ...export.passes import for_one_image
from ...export.tflite import lower
from ...runtimes.backend import Options
from ...runtimes.backends import open_backend
from ...targets import Target
from .judging import Judging
from .search import Candidate, Found
from .source import Source

# The first runs allocate memory and fill caches.
_WARM_UP: Final = 3
_ROUNDS: Final = 30


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Median times of one image from pixels to logits on this machine, one thread, in ms.

    Attributes:
        backend: What ran.
        float32: The float model.
        plain: Every layer quantized.
        candidates: By the layers left float, in the order of the candidates.
    """

    backend: str
    float32: float
    plain: float
    candidates: tuple[tuple[tuple[str, ...], float], ...]

    def of(self, candidate: Candidate) -> float:
        """Return a candidate's time."""
        return dict(self.candidates)[candidate.left]


def measure(
    source: Source, target: Target, precision: Precision, found: Found, judging: Judging
) -> Latency | None:
    """Time every candidate, in turns, so that what else the machine does slows all alike.

    Returns:
        None where the target's file does not run on this machine.
    """
    if target.runs_anywhere is None:
        return None
    scheme = target.scheme_for(precision)
    candidates = found.candidates or (found.best,)
    graphs: list[tuple[Precision, onnx.ModelProto]] = [
        ("fp32", for_one_image(source.model) if target.ships == "tflite" else source.model),
        (precision, source.quantize(scheme).model),
        *((precision, source.quantize(scheme, one.left).model) for one in candidates),
    ]
    backends = [
        open_backend(
            target.runs_anywhere,
            lower(graph).data if target.ships == "tflite" else graph.SerializeToString(),
            judging.preprocess,
            Options(precision=form, threads=1),
        )
        for form, graph in graphs
    ]
    float32, plain, *others = in_turns(
        [partial(backend.logits, judging.pixels[:1]) for backend in backends]
    )
    return Latency(
        backend=target.runs_anywhere,
        float32=float32,
        plain=plain,
        candidates=tuple((one.left, ms) for one, ms in zip(candidates, others, strict=True)),
    )


def in_turns(runs: Sequence[Callable[[], Logits]]) -> list[float]:
    """Return the median time of each run in ms, the runs in turns."""
    taken: list[list[float]] = [[] for _ in runs]
    for turn in range(_WARM_UP + _ROUNDS):
        for run, times in zip(runs, taken, strict=True):
            start = time.perf_counter()
            run()
            if turn >= _WARM_UP:
                times.append(1e3 * (time.perf_counter() - start))
    return [float(np.median(times)) for times in taken]


def fastest(candidates: Sequence[Candidate], latency: Latency) -> Candidate:
    """Return the candidate that took least time."""
    return min(candidates, key=latency.of)
