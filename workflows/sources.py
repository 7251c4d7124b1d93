"""What answers to images: a bundle, a model as export takes it, or a file of recorded logits."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import onnx

from ..bundle.manifest import Manifest
from ..core.errors import UsageError
from ..core.preprocess import Preprocess, resolve_preprocess
from ..core.values import Logits, Pixels
from ..data.labels import Labels
from ..models import LoadedModel, load_model
from ..runtimes import Predictor, load
from ..runtimes.logits_file import LogitsFile, is_logits_file
from .graph import OnnxRunner, resolve_input, run_torch

# A .pt2 file is a zip file too.
_MODEL_SUFFIXES: Final = {".pt2", ".onnx"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """Answers to pixels.

    Attributes:
        name: As the user called it.
        backend: What runs it, for the report.
        preprocess: What its images go through.
        size: (height, width) in px.
        classes: Its outputs.
        labels: Their names, where known.
        logits: From pixels (N, H, W, C) to logits (N, classes).
        predictor: What runs, where the source is a bundle.
    """

    name: str
    backend: str
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
    """Return whether what the user named is neither a bundle nor a file of logits."""
    path = Path(name)
    zipped = path.suffix not in _MODEL_SUFFIXES and path.is_file() and zipfile.is_zipfile(path)
    return not (path.is_dir() or zipped or is_logits_file(path))


def from_predictor(predictor: Predictor) -> Live:
    """Return a loaded bundle as a source."""
    manifest: Manifest = predictor.bundle.manifest
    simulated = " (simulated)" if predictor.fell_back else ""
    return Live(
        name=str(predictor.bundle.path),
        backend=f"{predictor.backend}{simulated}",
        preprocess=manifest.preprocess,
        size=predictor.input_size,
        classes=manifest.num_classes,
        labels=_labels(manifest.labels, manifest.synsets),
        logits=predictor.logits,
        predictor=predictor,
    )


def open_source(
    name: str, options: ModelOptions, *, preprocess: Preprocess | None = None,
    load_bundle: Callable[[str], Predictor] | None = None,
) -> Source:  # fmt: skip
    """Open what the user named.

    Args:
        name: A bundle's path, a file of logits, or a model source.
        options: For a model.
        preprocess: A model's, where the options name none; so only the model differs.
        load_bundle: Loads a bundle; by default with a simulation where its backend cannot run.

    Raises:
        EdgeclsError: It cannot be opened; nothing was guessed.
    """
    path = Path(name)
    if is_model(name):
        return _open_model(name, options, preprocess)
    if options != ModelOptions():
        raise UsageError(
            f"{name} brings its own weights and preprocessing; leave --weights, --preprocess and "
            "--num-classes out"
        )
    if is_logits_file(path):
        return Recorded(name=name, file=LogitsFile(path))
    loader = load_bundle or (lambda bundle: load(bundle, allow_fallback=True))
    return from_predictor(loader(name))


def _open_model(name: str, options: ModelOptions, preprocess: Preprocess | None) -> Live:
    loaded = load_model(name, weights=options.weights, num_classes=options.num_classes)
    if loaded.random_weights:
        raise UsageError(f"{name} has random weights: nothing is downloaded; give --weights FILE")
    chosen, size = resolve_input(
        loaded, resolve_preprocess(options.preprocess) if options.preprocess else preprocess
    )
    run = _runner(loaded, chosen)
    blank = np.zeros((1, *size, chosen.channels), np.uint8)
    return Live(
        name=name,
        backend="torch" if loaded.onnx is None else "onnxruntime",
        preprocess=chosen,
        size=size,
        classes=run(blank).shape[1],
        labels=None,
        logits=run,
    )


def _runner(loaded: LoadedModel, preprocess: Preprocess) -> Callable[[Pixels], Logits]:
    if loaded.onnx is None:
        return lambda pixels: run_torch(loaded, preprocess.normalize(pixels))
    runner = OnnxRunner(onnx.ModelProto.FromString(loaded.onnx))
    return lambda pixels: runner(preprocess.normalize(pixels))


def _labels(names: tuple[str, ...] | None, synsets: tuple[str, ...] | None) -> Labels | None:
    return None if names is None else Labels(names=names, synsets=synsets)
