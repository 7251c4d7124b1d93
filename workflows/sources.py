"""What answers to images: a bundle, a model as export takes it, or a file of recorded logits."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec
import numpy as np

from ..bundle.manifest import Manifest
from ..core.errors import DataError, UsageError
from ..core.files import sha256_bytes, sha256_file
from ..core.preprocess import Preprocess, resolve_preprocess
from ..core.values import Logits, Pixels, Precision
from ..data.labels import Labels
from ..runtimes import Predictor, load
from ..runtimes.logits_file import LogitsFile, is_logits_file
from ..targets.target import BackendName

if TYPE_CHECKING:
    from ..models import LoadedModel

# A .pt2 file is a zip file too.
_MODEL_SUFFIXES: Final = {".pt2", ".onnx"}
# What the room of models calls it, whose import brings torch.
_TRAINED: Final = "train.json"


class SourceSpec(msgspec.Struct, frozen=True, kw_only=True):
    """How another process opens the same source again: nothing is left to a default.

    Attributes:
        name: A bundle's or file's absolute path, or what names a model; paths are as the system
            has them: not every one is UTF-8.
        sha256: Of the files, the backend and its version; the same means the same logits on
            machines of one kind.
        threads: Of the CPU; None leaves it to the runtime.
        backend: Of a bundle.
        precision: Likewise.
        weights: Of a model: a file's absolute path.
        num_classes: Likewise.
        preprocess: Likewise.
    """

    name: bytes
    sha256: str
    threads: int | None = None
    backend: BackendName | None = None
    precision: Precision | None = None
    weights: bytes | None = None
    num_classes: int | None = None
    preprocess: Preprocess | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """Answers to pixels.

    Attributes:
        name: As the user called it.
        backend: What runs it, for the report.
        spec: How to open it again.
        preprocess: What its images go through.
        size: (height, width) in px.
        classes: Its outputs.
        labels: Their names, where known.
        logits: From pixels (N, H, W, C) to logits (N, classes).
        predictor: What runs, where the source is a bundle.
    """

    name: str
    backend: str
    spec: SourceSpec
    preprocess: Preprocess
    size: tuple[int, int]
    classes: int
    labels: Labels | None
    logits: Callable[[Pixels], Logits]
    predictor: Predictor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """Answers to images that it has seen, known by their files' hashes; attributes as ``Live``."""

    name: str
    file: LogitsFile

    @property
    def backend(self) -> str:
        """What ran it."""
        return f"{self.file.header.backend} (recorded)"

    @property
    def preprocess(self) -> Preprocess:
        """What its images went through."""
        return self.file.header.preprocess

    @property
    def classes(self) -> int:
        """Its outputs."""
        return self.file.header.classes

    @property
    def labels(self) -> Labels | None:
        """Their names, where known."""
        header = self.file.header
        return _labels(header.labels, header.synsets)

    @property
    def spec(self) -> SourceSpec:
        """How to open it again."""
        return SourceSpec(name=_absolute(str(self.file.path)), sha256=self.file.sha256)


Source: TypeAlias = "Live | Recorded"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """What a source that is a model needs; a bundle and a file of logits bring their own.

    Attributes:
        weights: A weights file.
        num_classes: Size of the head.
        preprocess: A preset or a file.
    """

    weights: Path | None = None
    num_classes: int | None = None
    preprocess: str | None = None


def is_model(name: str) -> bool:
    """Return whether what the user named is neither a bundle nor a file of logits.

    A folder that ``edgecls train`` wrote is a model.
    """
    path = Path(name)
    zipped = path.suffix not in _MODEL_SUFFIXES and path.is_file() and zipfile.is_zipfile(path)
    bundle = path.is_dir() and not _is_trained(path)
    return not (bundle or zipped or is_logits_file(path))


def _is_trained(folder: Path) -> bool:
    # Asked of the bundle first: a worker that runs bundles does without torch.
    return not (folder / "manifest.json").is_file() and (folder / _TRAINED).is_file()


def from_predictor(predictor: Predictor) -> Live:
    """Return a loaded bundle as a source."""
    manifest: Manifest = predictor.bundle.manifest
    simulated = " (simulated)" if predictor.fell_back else ""
    name = str(predictor.bundle.path)
    spec = SourceSpec(
        name=_absolute(name),
        sha256=_digest(
            predictor.bundle.sha256, predictor.artefact.path, predictor.backend,
            sorted(predictor.description.items()),
        ),
        threads=predictor.threads, backend=predictor.backend, precision=predictor.precision,
    )  # fmt: skip
    return Live(
        name=name,
        backend=f"{predictor.backend}{simulated}",
        spec=spec,
        preprocess=manifest.preprocess,
        size=predictor.input_size,
        classes=manifest.num_classes,
        labels=_labels(manifest.labels, manifest.synsets),
        logits=predictor.logits,
        predictor=predictor,
    )


def open_source(
    name: str, options: ModelOptions, *, preprocess: Preprocess | None = None,
    threads: int | None = 1, load_bundle: Callable[[str], Predictor] | None = None,
) -> Source:  # fmt: skip
    """Open what the user named.

    Args:
        name: A bundle's path, a file of logits, or a model source.
        options: For a model.
        preprocess: A model's, where the options name none; so only the model differs.
        threads: Of the CPU. One: sums are made in another order by more, and a verdict must not
            depend on the number of cores. None leaves it to the runtime.
        load_bundle: Loads a bundle; by default with a simulation where its backend cannot run.

    Raises:
        EdgeclsError: It cannot be opened; nothing was guessed.
    """
    path = Path(name)
    if is_model(name):
        if options.preprocess:
            preprocess = resolve_preprocess(options.preprocess)
        return _open_model(name, options.weights, options.num_classes, preprocess, threads)
    if options != ModelOptions():
        raise UsageError(
            f"{name} brings its own weights and preprocessing; leave --weights, --preprocess and "
            "--num-classes out"
        )
    if is_logits_file(path):
        return Recorded(name=name, file=LogitsFile(path))
    loader = load_bundle or (lambda bundle: load(bundle, allow_fallback=True, threads=threads))
    return from_predictor(loader(name))


def open_again(spec: SourceSpec) -> Source:
    """Open a source that another process has open.

    Raises:
        DataError: It is not the same here.
        EdgeclsError: It cannot be opened.
    """
    name = os.fsdecode(spec.name)
    path = Path(name)
    found: Source
    if spec.backend is not None:
        found = from_predictor(
            load(path, backend=spec.backend, precision=spec.precision, threads=spec.threads)
        )
    elif is_logits_file(path):
        found = Recorded(name=name, file=LogitsFile(path))
    else:
        weights = None if spec.weights is None else Path(os.fsdecode(spec.weights))
        found = _open_model(name, weights, spec.num_classes, spec.preprocess, spec.threads)
    if found.spec.sha256 != spec.sha256:
        raise DataError(
            f"{name} is not the same to every worker: its files, the backend or the backend's "
            "version differ from those of the process that began the run"
        )
    return found


def _open_model(
    name: str, weights: Path | None, num_classes: int | None, preprocess: Preprocess | None,
    threads: int | None,
) -> Live:  # fmt: skip
    # Not above: a worker that runs bundles starts in a twentieth of the time without torch.
    from ..models import load_model
    from .graph import resolve_input

    loaded = load_model(name, weights=weights, num_classes=num_classes)
    if loaded.random_weights:
        raise UsageError(f"{name} has random weights: nothing is downloaded; give --weights FILE")
    chosen, size = resolve_input(loaded, preprocess)
    if loaded.simulation is not None:
        # What it was trained to be: the float graph's answers ship nowhere.
        loaded = replace(loaded, onnx=loaded.simulation)
    run = _runner(loaded, chosen, threads)
    blank = np.zeros((1, *size, chosen.channels), np.uint8)
    file = sha256_file(Path(name)) if Path(name).is_file() else None
    is_file = (file is not None and Path(name).suffix in _MODEL_SUFFIXES) or Path(name).is_dir()
    return Live(
        name=name,
        backend=_backend(loaded),
        preprocess=chosen,
        size=size,
        classes=run(blank).shape[1],
        labels=_labels(loaded.labels, None),
        logits=run,
        spec=SourceSpec(
            name=_absolute(name) if is_file else os.fsencode(name),
            sha256=_digest(file, _weights(loaded), _version(loaded)),
            threads=threads, weights=None if weights is None else _absolute(str(weights)),
            num_classes=num_classes, preprocess=chosen,
        ),
    )  # fmt: skip


def _runner(
    loaded: LoadedModel, preprocess: Preprocess, threads: int | None
) -> Callable[[Pixels], Logits]:
    from .graph import OnnxRunner, run_torch

    if loaded.onnx is not None:
        import onnx

        runner = OnnxRunner(onnx.ModelProto.FromString(loaded.onnx), threads or 0)
        return lambda pixels: runner(preprocess.normalize(pixels))

    def run(pixels: Pixels) -> Logits:
        with torch_threads(threads):
            return run_torch(loaded, preprocess.normalize(pixels))

    return run


@contextmanager
def torch_threads(threads: int | None) -> Iterator[None]:
    """Give torch so many threads; its setting is the process's, so it is put back."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _weights(loaded: LoadedModel) -> str | None:
    if loaded.simulation is not None:
        return sha256_bytes(loaded.simulation)
    return loaded.weights_sha256


def _backend(loaded: LoadedModel) -> str:
    if loaded.quantized is not None:
        return f"onnxruntime (simulation of int8 on {loaded.quantized.target})"
    return "torch" if loaded.onnx is None else "onnxruntime"


def _version(loaded: LoadedModel) -> str:
    return version("torch" if loaded.onnx is None else "onnxruntime")


def _digest(*parts: object) -> str:
    return sha256_bytes(repr(parts).encode())


def _absolute(name: str) -> bytes:
    """Return a path that holds from every folder."""
    return os.fsencode(Path(name).absolute())


def _labels(names: tuple[str, ...] | None, synsets: tuple[str, ...] | None) -> Labels | None:
    return None if names is None else Labels(names=names, synsets=synsets)
