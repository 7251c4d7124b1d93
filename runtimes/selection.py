"""Which backend runs a bundle here, and which of its files."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..bundle import Bundle
from ..bundle.manifest import Artefact
from ..core.errors import BackendUnavailableError, BundleError, EngineError, UsageError
from ..core.values import Precision
from ..targets import get_target
from ..targets.target import BackendName
from .backend import Backend, Options
from .backends import BACKENDS, check_backend, formats_of, open_backend, why_not


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
) -> Choice:
    """Choose the backend that was asked for, or the target's first that can run here.

    Raises:
        BundleError: The bundle has no file for it.
        MissingError: It, or every backend of the target, cannot run here.
        UsageError: There is no backend of that name.
    """
    if backend is not None:
        if backend not in BACKENDS:
            raise UsageError(f"no backend {backend!r}; there are: {', '.join(BACKENDS)}")
        artefact = _artefact(bundle, backend, precision)
        if artefact is None:
            raise BundleError(_nothing_for(bundle, backend, precision))
        check_backend(backend, artefact.precision)
        return Choice(backend=backend, artefact=artefact)
    target = get_target(bundle.manifest.target)
    reasons: list[str] = []
    for name in target.backends:
        found = _usable(bundle, name, precision, reasons)
        if found is not None:
            return Choice(backend=name, artefact=found)
    native = "; ".join(reasons)
    if allow_fallback:
        for name in target.simulators:
            found = _usable(bundle, name, precision, reasons)
            if found is not None:
                return Choice(backend=name, artefact=found, fell_back=native)
    hint = "".join(
        f"\n  to simulate it on this machine: --backend {name}"
        for name in target.simulators
        if not allow_fallback and _artefact(bundle, name, precision) is not None
    )
    listed = "".join(f"\n  {reason}" for reason in reasons)
    raise BackendUnavailableError(
        f"{bundle.path}: no backend for {target.name} can run here:{listed}{hint}"
    )


def open_choice(
    bundle: Bundle, choice: Choice, *, threads: int | None = None
) -> tuple[Choice, Backend]:
    """Load what was chosen; the file's hash is verified as it is read.

    Returns:
        What runs, which is the graph where a shipped engine is for another TensorRT or GPU; and
        the backend that runs it.
    """
    artefact = choice.artefact
    engine = artefact.format == "tensorrt-rtx"
    options = Options(precision=artefact.precision, threads=threads, engine=engine)
    model = bundle.read(artefact.path)
    try:
        return choice, open_backend(choice.backend, model, bundle.manifest.preprocess, options)
    except EngineError:
        graph = bundle.find("onnx", artefact.precision)
        if graph is None:
            raise
        return open_choice(bundle, replace(choice, artefact=graph), threads=threads)


def _usable(
    bundle: Bundle, name: BackendName, precision: Precision | None, reasons: list[str]
) -> Artefact | None:
    found = _artefact(bundle, name, precision)
    if found is None:
        reason: str | None = _nothing_for(bundle, name, precision)
    else:
        reason = why_not(name, found.precision)
    if reason is not None:
        reasons.append(f"{name}: {reason}")
        return None
    return found


def _artefact(bundle: Bundle, name: BackendName, precision: Precision | None) -> Artefact | None:
    wanted = precision or bundle.manifest.precision
    for file_format in formats_of(name):
        found = bundle.find(file_format, wanted)
        if found is not None:
            return found
    return None


def _nothing_for(bundle: Bundle, name: BackendName, precision: Precision | None) -> str:
    held = ", ".join(f"{a.format} {a.precision}" for a in bundle.manifest.artefacts)
    wanted = precision or bundle.manifest.precision
    formats = " or ".join(formats_of(name))
    return f"the bundle has no {formats} in {wanted} for {name}; it has: {held}"
