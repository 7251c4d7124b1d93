"""The backends by name: what they run, whether they can run here, and how one is made."""

from __future__ import annotations

import importlib
from typing import Final, Protocol, cast

from ..core.errors import BackendUnavailableError, MissingError
from ..core.preprocess import Preprocess
from ..core.values import ArtefactFormat, Precision
from ..targets.target import BackendName
from .backend import Backend, Options

# Backend: the formats that it takes, the preferred first; the module and class behind it.
_BACKENDS: Final[dict[BackendName, tuple[tuple[ArtefactFormat, ...], str, str]]] = {
    "litert": (("tflite",), "litert", "LiteRTBackend"),
    "tflite-runtime": (("tflite",), "litert", "LiteRTBackend"),
    "tensorflow": (("tflite",), "litert", "LiteRTBackend"),
    "onnxruntime": (("onnx",), "onnxruntime", "OnnxRuntimeBackend"),
    "onnxruntime-cpu": (("onnx",), "onnxruntime", "OnnxRuntimeBackend"),
    "onnxruntime-cuda": (("onnx",), "onnxruntime", "OnnxRuntimeBackend"),
    "tensorrt": (("onnx", "onnx-calibrated"), "tensorrt", "TensorRTBackend"),
    "tensorrt-rtx": (("tensorrt-rtx", "onnx"), "tensorrt", "TensorRTBackend"),
}

BACKENDS: Final[tuple[BackendName, ...]] = tuple(_BACKENDS)

BUILDS_ENGINES: Final[frozenset[BackendName]] = frozenset({"tensorrt", "tensorrt-rtx"})


# Measured with tflite-runtime 2.14, its last release.
_WRONG: Final[dict[BackendName, frozenset[Precision]]] = {
    "tflite-runtime": frozenset({"int8-dynamic"})
}


class _BackendClass(Protocol):
    def __call__(
        self, name: BackendName, model: bytes, preprocess: Preprocess, options: Options
    ) -> Backend: ...

    def check(self, name: BackendName) -> str: ...


def formats_of(name: BackendName) -> tuple[ArtefactFormat, ...]:
    """Return the formats that a backend takes, the preferred first."""
    return _BACKENDS[name][0]


def check_backend(name: BackendName, precision: Precision | None = None) -> str:
    """Return the version of the library behind a backend.

    Args:
        name: Which backend.
        precision: Of the file that it is to run.

    Raises:
        MissingError: It is not installed, cannot run on this machine, or computes files of that
            precision wrongly; the message says why.
    """
    if precision in _WRONG.get(name, ()):
        raise BackendUnavailableError(
            f"{name} computes {precision} files wrongly without saying so; run: "
            "pip install 'edgecls[litert]', or export with another --precision"
        )
    return _class_of(name).check(name)


def why_not(name: BackendName, precision: Precision | None = None) -> str | None:
    """Return why a backend cannot run here, or not a file of that precision; None where it can."""
    try:
        check_backend(name, precision)
    except MissingError as error:
        return str(error)
    return None


def open_backend(
    name: BackendName, model: bytes, preprocess: Preprocess, options: Options
) -> Backend:
    """Load a model file into a backend.

    Args:
        name: Which backend; no other takes its place.
        model: The bytes of a ``.tflite`` or ONNX file, or of a TensorRT-RTX engine.
        preprocess: What turns pixel codes into the model's input.
        options: Its precision and how to run it.

    Raises:
        MissingError: The backend cannot run here.
        BundleError: It does not take the model, or the model is no image classifier.
    """
    check_backend(name, options.precision)
    return _class_of(name)(name, model, preprocess, options)


def _class_of(name: BackendName) -> _BackendClass:
    _, module, class_name = _BACKENDS[name]
    loaded = importlib.import_module(f".{module}", __package__)
    return cast(_BackendClass, getattr(loaded, class_name))
