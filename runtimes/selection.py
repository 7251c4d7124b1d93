"""Which backend runs a bundle here, and which of its files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from ..bundle import Bundle
from ..bundle.manifest import Artefact
from ..core.errors import BackendUnavailableError, BundleError, EngineError, UsageError
from ..core.progress import Gauge
from ..core.values import ArtefactFormat, Precision
from ..targets import get_target
from ..targets.target import BackendName
from .backend import Backend, Options
from .backends import BACKENDS, check_backend, formats_of, open_backend, why_not
from .engine_options import DEFAULT, EngineOptions

_IMPLICIT: Final[ArtefactFormat] = "onnx-calibrated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What will run.

    Attributes:
        backend: Its name.
        artefact: The file that it takes.
        fell_back: Why it is not a backend of the bundle's target, else None.
    """

    backend: BackendName
    artefact: Artefact
    fell_back: str | None = None


def select(
    bundle: Bundle,
    *,
    backend: BackendName | None,
    precision: Precision | None,
    allow_fallback: bool,
    engine: EngineOptions = DEFAULT,
) -> Choice:
    """Choose the backend that was asked for, or the target's first that can run here.

    Where the engine is to be quantized by TensorRT itself, only TensorRT is asked.

    Raises:
        BundleError: The bundle has no file for it.
        MissingError: It, or every backend of the target, cannot run here.
        UsageError: There is no backend of that name.
    """
    if backend is not None:
        if backend not in BACKENDS:
            raise UsageError(f"no backend {backend!r}; there are: {', '.join(BACKENDS)}")
        if engine.implicit_int8 and _IMPLICIT not in formats_of(backend):
            raise UsageError(
                f"{backend} has no implicit quantization, TensorRT 10 has; leave --implicit-int8 "
                "out or choose --backend tensorrt"
            )
        artefact = artefact_for(bundle, backend, precision, engine)
        check_backend(backend, artefact.precision)
        return Choice(backend=backend, artefact=artefact)
    target = get_target(bundle.manifest.target)
    reasons: list[str] = []
    for name in target.backends:
        found = _usable(bundle, name, precision, engine, reasons)
        if found is not None:
            return Choice(backend=name, artefact=found)
    native = "; ".join(reasons)
    if allow_fallback:
        for name in target.simulators:
            found = _usable(bundle, name, precision, engine, reasons)
            if found is not None:
                return Choice(backend=name, artefact=found, fell_back=native)
    hint = "".join(
        f"\n  to simulate it on this machine: --backend {name}"
        for name in target.simulators
        if not allow_fallback and _artefact(bundle, name, precision, engine) is not None
    )
    listed = "".join(f"\n  {reason}" for reason in reasons)
    raise BackendUnavailableError(
        f"{bundle.path}: no backend for {target.name} can run here:{listed}{hint}"
    )


def artefact_for(
    bundle: Bundle,
    backend: BackendName,
    precision: Precision | None,
    engine: EngineOptions = DEFAULT,
) -> Artefact:
    """Return the file of a bundle that a backend runs, whether or not it can run here.

    Raises:
        BundleError: The bundle has none for it.
    """
    found = _artefact(bundle, backend, precision, engine)
    if found is None:
        raise BundleError(_nothing_for(bundle, backend, precision, engine))
    return found


def open_choice(
    bundle: Bundle,
    choice: Choice,
    *,
    threads: int | None = None,
    engine: EngineOptions = DEFAULT,
    progress: Gauge | None = None,
) -> tuple[Choice, Backend]:
    """Load what was chosen; the file's hash is verified as it is read.

    Returns:
        What runs, which is the graph where a shipped engine is for another TensorRT or GPU; and
        the backend that runs it.
    """
    artefact = choice.artefact
    cache = artefact.calibration_cache
    options = Options(
        precision=artefact.precision,
        threads=threads,
        built=artefact.format == "tensorrt-rtx",
        engine=engine,
        calibration=None if cache is None else bundle.read(cache),
        progress=progress,
    )
    model = bundle.read(artefact.path)
    try:
        return choice, open_backend(choice.backend, model, bundle.manifest.preprocess, options)
    except EngineError:
        graph = bundle.find("onnx", artefact.precision)
        if graph is None or not options.built:
            raise
        choice = replace(choice, artefact=graph)
        return open_choice(bundle, choice, threads=threads, engine=engine, progress=progress)


def _usable(
    bundle: Bundle,
    name: BackendName,
    precision: Precision | None,
    engine: EngineOptions,
    reasons: list[str],
) -> Artefact | None:
    found = _artefact(bundle, name, precision, engine)
    if found is None:
        reason: str | None = _nothing_for(bundle, name, precision, engine)
    else:
        reason = why_not(name, found.precision)
    if reason is not None:
        reasons.append(f"{name}: {reason}")
        return None
    return found


def _wanted(name: BackendName, engine: EngineOptions) -> tuple[ArtefactFormat, ...]:
    """Return the formats that a backend can take for such an engine, the preferred first."""
    if engine.implicit_int8:
        return tuple(form for form in formats_of(name) if form == _IMPLICIT)
    own = engine.shape_of_build != DEFAULT.shape_of_build  # a shipped engine is of the default's
    return tuple(
        form
        for form in formats_of(name)
        if form != _IMPLICIT and not (own and form == "tensorrt-rtx")
    )


def _artefact(
    bundle: Bundle, name: BackendName, precision: Precision | None, engine: EngineOptions
) -> Artefact | None:
    wanted = precision or ("int8" if engine.implicit_int8 else bundle.manifest.precision)
    for file_format in _wanted(name, engine):
        found = bundle.find(file_format, wanted)
        if found is not None:
            return found
    return None


def _nothing_for(
    bundle: Bundle, name: BackendName, precision: Precision | None, engine: EngineOptions
) -> str:
    held = ", ".join(f"{a.format} {a.precision}" for a in bundle.manifest.artefacts)
    if engine.implicit_int8:
        if _IMPLICIT not in formats_of(name):
            return "it has no implicit quantization"
        return (
            f"the bundle has no graph for implicit quantization; it has: {held}; export it with "
            "--implicit-int8"
        )
    wanted = precision or bundle.manifest.precision
    formats = " or ".join(_wanted(name, engine))
    return f"the bundle has no {formats} in {wanted} for {name}; it has: {held}"
