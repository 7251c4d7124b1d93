"""Building a bundle's engine ahead of its first load."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

import msgspec

from ..bundle import Bundle
from ..core.errors import BackendUnavailableError, UsageError
from ..core.files import write_atomic
from ..core.progress import Gauge
from ..core.values import Precision
from ..targets import get_target
from ..targets.target import BackendName
from .backends import BUILDS_ENGINES, why_not
from .engine_options import DEFAULT, EngineOptions
from .selection import artefact_for, open_choice, select
from .tensorrt_build import build_engine, import_api


class BuildReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a bundle's engine.

    Attributes:
        outcome: "built" now; "cached", built before; "shipped" in the bundle; "not needed" where
            the bundle's file runs as it is.
        artefact: The bundle's file.
        precision: Of it.
        backend: That runs it.
        description: Library and device, for humans.
        build_s: What building took, where it was built.
        size_bytes: Of the engine, where there is one.
        path: Its file in the cache, where it lies there.
    """

    outcome: Literal["built", "cached", "shipped", "not needed"]
    artefact: str
    precision: Precision
    backend: BackendName
    description: dict[str, str] = {}
    build_s: float | None = None
    size_bytes: int | None = None
    path: str | None = None


def build(
    bundle: Bundle,
    *,
    backend: BackendName | None = None,
    precision: Precision | None = None,
    engine: EngineOptions = DEFAULT,
    output: Path | None = None,
    progress: Gauge | None = None,
) -> BuildReport:
    """Build the engine that ``load`` with the same options runs, unless the cache has it.

    Args:
        bundle: What is to run.
        backend: As for ``load``; by default the target's first that builds engines and can here.
        precision: As for ``load``.
        engine: How the engine is built.
        output: A file that gets the engine too.
        progress: Shows how far the build is.

    Raises:
        MissingError: TensorRT or a GPU is not there; the message says why, for each.
        GraphError: TensorRT does not take the graph.
        UsageError: ``output`` is wanted and there is no engine.
        BundleError: The bundle has no file for the backend.
    """
    chosen = backend or _builder(bundle)
    choice = select(
        bundle, backend=chosen, precision=precision, allow_fallback=False, engine=engine
    ) if chosen in BUILDS_ENGINES else None  # fmt: skip
    if choice is None:
        return _not_needed(bundle, chosen, precision, engine, output)
    choice, running = open_choice(bundle, choice, engine=engine, progress=progress)
    running.close()
    use = running.engine
    assert use is not None
    if output is not None:
        data = bundle.read(choice.artefact.path) if use.path is None else use.path.read_bytes()
        write_atomic(output, data)
    return BuildReport(
        outcome=use.outcome,
        artefact=choice.artefact.path,
        precision=choice.artefact.precision,
        backend=choice.backend,
        description=running.description,
        build_s=use.build_s,
        size_bytes=use.size_bytes,
        path=None if use.path is None else str(use.path),
    )


def build_for(
    bundle: Bundle,
    compute_capability: tuple[int, int],
    output: Path,
    *,
    precision: Precision | None = None,
    engine: EngineOptions = DEFAULT,
    progress: Gauge | None = None,
) -> BuildReport:
    """Build an engine with TensorRT-RTX for a GPU that need not be here.

    It goes into no cache: that is kept by the GPU's name.

    Args:
        bundle: What is to run there.
        compute_capability: (major, minor) of that GPU.
        output: Gets the engine.
        precision: Of the graph; by default the bundle's own.
        engine: How it is built.
        progress: Shows how far the build is.

    Raises:
        MissingError: TensorRT-RTX is not installed.
        UsageError: It does not build for that GPU, or the bundle has no graph for it.
        GraphError: It does not take the graph.
    """
    trt = import_api("tensorrt-rtx")
    wanted = precision or bundle.manifest.precision
    graph = bundle.find("onnx", wanted)
    if graph is None or engine.implicit_int8:
        held = ", ".join(f"{a.format} {a.precision}" for a in bundle.manifest.artefacts)
        raise UsageError(
            f"{bundle.path}: TensorRT-RTX builds from an ONNX graph as it is"
            + ("; leave --implicit-int8 out" if engine.implicit_int8 else "")
            + f", expected onnx {wanted}, found {held}"
        )
    start = time.perf_counter()
    data = build_engine(
        bundle.read(graph.path), api="tensorrt-rtx", options=engine, progress=progress,
        compute_capability=compute_capability,
    )  # fmt: skip
    taken_s = time.perf_counter() - start
    write_atomic(output, data)
    major, minor = compute_capability
    return BuildReport(
        outcome="built",
        artefact=graph.path,
        precision=wanted,
        backend="tensorrt-rtx",
        description={
            "library": f"tensorrt-rtx {trt.__version__}",
            "device": f"compute capability {major}.{minor}",
        },
        build_s=taken_s,
        size_bytes=len(data),
    )


def _builder(bundle: Bundle) -> BackendName:
    """Return the target's first backend that can build here; any where none has engines."""
    target = get_target(bundle.manifest.target)
    builders = [name for name in target.backends if name in BUILDS_ENGINES]
    if not builders:
        return target.backends[0]
    reasons = {name: why_not(name) for name in builders}
    usable = [name for name, reason in reasons.items() if reason is None]
    if not usable:
        listed = "".join(f"\n  {name}: {reason}" for name, reason in reasons.items())
        raise BackendUnavailableError(
            f"{bundle.path}: no engine for {target.name} can be built here:{listed}"
        )
    return usable[0]


def _not_needed(
    bundle: Bundle,
    backend: BackendName,
    precision: Precision | None,
    engine: EngineOptions,
    output: Path | None,
) -> BuildReport:
    """Say that a backend takes the bundle's file as it is, whether or not it is installed here."""
    if output is not None or engine.implicit_int8:
        wanted_for = "to write" if output is not None else "for --implicit-int8 to quantize"
        raise UsageError(f"{backend} builds no engine: there is none {wanted_for}")
    found = artefact_for(bundle, backend, precision)
    return BuildReport(
        outcome="not needed", artefact=found.path, precision=found.precision, backend=backend
    )
