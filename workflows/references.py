"""What a bundle is compared with: another bundle, or a model as export takes it."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import onnx

from ..bundle import Bundle
from ..core.errors import UsageError
from ..core.preprocess import Preprocess, resolve_preprocess
from ..core.values import Logits, Pixels
from ..models import load_model
from ..runtimes import load
from .graph import OnnxRunner, resolve_input, run_torch

# A .pt2 file is a zip file too.
_MODEL_SUFFIXES: Final = {".pt2", ".onnx"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Answers to pixels.

    Attributes:
        name: As the user called it.
        backend: What runs it, for the report.
        preprocess: What its images go through.
        size: (height, width) in px.
        logits: From pixels (N, H, W, C) to logits (N, classes).
    """

    name: str
    backend: str
    preprocess: Preprocess
    size: tuple[int, int]
    logits: Callable[[Pixels], Logits]


def is_bundle(name: str) -> bool:
    """Return whether what the user named is a bundle's folder or zip file, not a model."""
    path = Path(name)
    zipped = path.suffix not in _MODEL_SUFFIXES and path.is_file() and zipfile.is_zipfile(path)
    return path.is_dir() or zipped


def open_reference(
    name: str,
    *,
    weights: Path | None,
    num_classes: int | None,
    preprocess: str | None,
    candidate: Preprocess,
) -> Source:
    """Open what the user named: a bundle where there is one, else a model source.

    Args:
        name: A bundle's path or a model source.
        weights: For a model.
        num_classes: For a model.
        preprocess: For a model; without it the candidate's, so that only the model differs.
        candidate: The candidate's preprocessing.

    Raises:
        EdgeclsError: It cannot be opened; nothing was guessed.
    """
    path = Path(name)
    if is_bundle(name):
        if weights is not None or preprocess is not None or num_classes is not None:
            raise UsageError(
                f"{name} is a bundle and brings its own weights and preprocessing; leave "
                "--weights, --preprocess and --num-classes out"
            )
        bundle = Bundle(path)
        predictor = load(bundle, allow_fallback=True)
        simulated = " (simulated)" if predictor.fell_back else ""
        return Source(
            name=name,
            backend=f"{predictor.backend}{simulated}",
            preprocess=bundle.manifest.preprocess,
            size=predictor.input_size,
            logits=predictor.logits,
        )
    loaded = load_model(name, weights=weights, num_classes=num_classes)
    if loaded.random_weights:
        raise UsageError(f"{name} has random weights: nothing is downloaded; give --weights FILE")
    chosen, size = resolve_input(
        loaded, resolve_preprocess(preprocess) if preprocess else candidate
    )
    if loaded.onnx is not None:
        run = _onnx_runner(loaded.onnx)
        return Source(name=name, backend="onnxruntime", preprocess=chosen, size=size,
                      logits=lambda pixels: run(chosen, pixels))  # fmt: skip
    return Source(
        name=name,
        backend="torch",
        preprocess=chosen,
        size=size,
        logits=lambda pixels: run_torch(loaded, chosen.normalize(pixels)),
    )


def _onnx_runner(data: bytes) -> Callable[[Preprocess, Pixels], Logits]:
    runner = OnnxRunner(onnx.ModelProto.FromString(data))
    return lambda preprocess, pixels: runner(preprocess.normalize(pixels))
