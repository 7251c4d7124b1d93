"""What every backend is: pixels in, logits out; the base checks and converts, a backend runs."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray

from ..core.errors import BadInputError, BundleError
from ..core.preprocess import Preprocess
from ..core.progress import Gauge
from ..core.values import Logits, Pixels, Precision, Tensor
from ..targets.target import BackendName
from .engine_options import DEFAULT, EngineOptions
from .layer import Layer

Batch = NDArray[Any]
"""Images or outputs in the dtype and layout of the file that runs."""

_INPUT_DTYPES: Final = ("float32", "float16", "int8", "uint8", "int16")


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeTensor:
    """An input or output as the runtime declares it.

    Attributes:
        shape: The batch first, None where it is free.
        dtype: Of the array that the runtime takes or gives.
        scale: Units per code of an integer tensor; 0 for a floating-point one.
        zero_point: The code that means 0.
    """

    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]
    scale: float = 0.0
    zero_point: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a backend runs a model.

    Attributes:
        precision: Of the artefact: a quantized graph is simulated without fused kernels.
        threads: For a CPU; None leaves it to the runtime.
        built: Whether the model is a built TensorRT engine, not a graph.
        engine: How an engine is built and run.
        calibration: A TensorRT calibration cache by which the graph is quantized as it is built.
        progress: Shows how far a build is.
    """

    precision: Precision
    threads: int | None = None
    built: bool = False
    engine: EngineOptions = DEFAULT
    calibration: bytes | None = None
    progress: Gauge | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineUse:
    """The TensorRT engine that runs.

    Attributes:
        outcome: "built" just now, "cached" where it was built before, "shipped" in the bundle.
        size_bytes: Of the engine.
        path: Its file in the cache; None where the bundle brought it.
        build_s: What building it took, where it was built just now.
    """

    outcome: Literal["built", "cached", "shipped"]
    size_bytes: int
    path: Path | None = None
    build_s: float | None = None


class Backend(ABC):
    """Runs one model; safe to use from several threads, which take turns.

    Attributes:
        name: Which backend this is.
        input_size: (height, width) in px.
        classes: How many logits come out.
        description: For humans: versions, the device, what computes.
        problem: What is wrong with this machine though the answers are right, else None.
        engine: The TensorRT engine that runs, where it is one.
    """

    layout: ClassVar[Literal["NHWC", "NCHW"]]

    def __init__(
        self,
        name: BackendName,
        preprocess: Preprocess,
        source: NativeTensor,
        result: NativeTensor,
        *,
        max_batch: int | None = None,
        buffer: Batch | None = None,
    ) -> None:
        """Check that the model takes such images and gives logits.

        Args:
            name: Which backend this is.
            preprocess: Gives the value of each pixel code.
            source: The model's input.
            result: Its output.
            max_batch: The most images at once where the batch is free.
            buffer: Memory for the input, of ``max_batch`` images, where it must be a special one.

        Raises:
            BundleError: The model's input or output is not an image classifier's.
        """
        self.name: BackendName = name
        self.description: dict[str, str] = {}
        self.problem: str | None = None
        self.engine: EngineUse | None = None
        self.input_size, self.classes = _check(self.layout, preprocess, source, result)
        self._source = source
        self._result = result
        self._fixed_batch = source.shape[0]
        self._max_batch = self._fixed_batch or max_batch
        self._table = _native_table(preprocess, source)
        self._same_rows = bool((self._table == self._table[0]).all())
        self._buffer = self._memory(0) if buffer is None else buffer
        self._lock = threading.Lock()

    @classmethod
    @abstractmethod
    def check(cls, name: BackendName) -> str:
        """Return the version of the library behind ``name``.

        Raises:
            MissingError: It is not installed or cannot run on this machine; the message says why.
        """

    def logits(self, pixels: Pixels) -> Logits:
        """Run the model.

        Args:
            pixels: Shape (N, H, W, C), uint8, as ``to_pixels`` gives them.

        Returns:
            Shape (N, classes), float32.

        Raises:
            BadInputError: Another shape or dtype.
        """
        expected = (*self.input_size, len(self._table))
        if pixels.ndim != 4 or pixels.shape[1:] != expected or pixels.dtype != np.uint8:
            raise BadInputError(
                f"expected pixels (N, {', '.join(map(str, expected))}) uint8, "
                f"found {pixels.shape} {pixels.dtype}"
            )
        return self._in_steps(pixels, self._fill)

    def logits_of_tensor(self, tensor: Tensor) -> Logits:
        """Run the model on normalised images, whatever its layout and dtype.

        Args:
            tensor: Shape (N, C, H, W), float32; an integer input takes the nearest code.

        Returns:
            Shape (N, classes), float32.

        Raises:
            BadInputError: Another shape or dtype, or a NaN or an infinity.
        """
        expected = (len(self._table), *self.input_size)
        if tensor.ndim != 4 or tensor.shape[1:] != expected or tensor.dtype != np.float32:
            raise BadInputError(
                f"expected a tensor (N, {', '.join(map(str, expected))}) float32, "
                f"found {tensor.shape} {tensor.dtype}"
            )
        if not np.isfinite(tensor).all():
            raise BadInputError("expected finite numbers, found a NaN or an infinity")
        return self._in_steps(tensor, self._fill_tensor)

    def tensors(self, pixels: Pixels) -> Batch:
        """Return what the model is fed for pixels (N, H, W, C), in its own dtype and layout."""
        batch = self._memory(len(pixels))
        self._fill(batch, pixels)
        return batch

    @abstractmethod
    def layers(self, model: bytes) -> tuple[Layer, ...]:
        """Return where each layer of the model that was loaded runs, as the runtime tells it."""

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Give back what the backend holds outside Python's memory."""

    @abstractmethod
    def _infer(self, batch: Batch) -> Batch:
        """Return the output for a batch in the native dtype and layout."""

    @property
    def max_batch(self) -> int | None:
        """The most images that run at once; None where nothing bounds it."""
        return self._max_batch

    def _in_steps(self, images: Batch, fill: Callable[[Batch, Batch], None]) -> Logits:
        """Run images that ``fill`` writes into a batch, as many at once as the model takes."""
        count = len(images)
        step = self._max_batch or count
        with self._lock:
            if count and count <= step:
                return self._run(images, fill)
            found = [self._run(images[at : at + step], fill) for at in range(0, count, step)]
        return np.concatenate([np.empty((0, self.classes), np.float32), *found])

    def _run(self, images: Batch, fill: Callable[[Batch, Batch], None]) -> Logits:
        count = len(images)
        size = self._fixed_batch or count
        if len(self._buffer) < size:
            self._buffer = self._memory(size)
        batch = self._buffer[:size]
        fill(batch, images)
        found = self._infer(batch).reshape(size, -1)[:count]
        result = self._result
        if result.scale:
            codes = found.astype(np.float32) - np.float32(result.zero_point)
            return codes * np.float32(result.scale)
        return found.astype(np.float32)

    def _memory(self, images: int) -> Batch:
        height, width = self.input_size
        plane = (len(self._table), height, width)
        each = plane if self.layout == "NCHW" else (*plane[1:], plane[0])
        return np.zeros((images, *each), self._source.dtype)

    def _fill_tensor(self, batch: Batch, tensor: Tensor) -> None:
        moved = tensor if self.layout == "NCHW" else tensor.transpose(0, 2, 3, 1)
        with np.errstate(over="ignore"):
            values = _native_values(moved, self._source)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise BadInputError(f"expected numbers that {values.dtype} holds: the model takes it")
        batch[: len(tensor)] = values

    def _fill(self, batch: Batch, pixels: Pixels) -> None:
        """Write each code's value into the batch, whose images beyond ``pixels`` stay as they are.

        The indices are bytes and every row has 256 values: clipping never happens, and spares
        numpy a check and a copy.
        """
        table = self._table
        if self.layout == "NHWC":
            target = batch[: len(pixels)]
            if self._same_rows:
                np.take(table[0], pixels, out=target, mode="clip")
            else:
                for channel, row in enumerate(table):
                    target[..., channel] = np.take(row, pixels[..., channel], mode="clip")
            return
        for index, image in enumerate(pixels):
            for channel, row in enumerate(table):
                np.take(row, image[..., channel], out=batch[index, channel], mode="clip")


def _check(
    layout: str, preprocess: Preprocess, source: NativeTensor, result: NativeTensor
) -> tuple[tuple[int, int], int]:
    shape = source.shape
    where = "(N, H, W, C)" if layout == "NHWC" else "(N, C, H, W)"
    if len(shape) != 4 or None in shape[1:]:
        raise BundleError(f"the model's input has shape {shape}, expected a fixed {where}")
    height, width, channels = shape[1:] if layout == "NHWC" else (*shape[2:], shape[1])
    assert height is not None
    assert width is not None
    if channels != preprocess.channels:
        raise BundleError(
            f"the model takes {channels} channel(s), its preprocessing gives {preprocess.channels}"
        )
    if preprocess.output_size not in (None, (height, width)):
        raise BundleError(
            f"the model takes {height}x{width} px (height x width), its preprocessing gives "
            f"{preprocess.output_size}"
        )
    if source.dtype.name not in _INPUT_DTYPES:
        raise BundleError(f"the model's input is {source.dtype}, expected {_INPUT_DTYPES}")
    for name, tensor in (("input", source), ("output", result)):
        if tensor.dtype.kind in "iu" and not tensor.scale > 0:
            raise BundleError(f"the model's {name} is {tensor.dtype} without a scale")
    outputs = result.shape[1:]
    if len(result.shape) < 2 or None in outputs or any(size != 1 for size in outputs[1:]):
        raise BundleError(f"the model's output has shape {result.shape}, expected (N, classes)")
    classes = outputs[0]
    assert classes is not None
    return (height, width), classes


def _native_table(preprocess: Preprocess, source: NativeTensor) -> Batch:
    """Return each code's value in the input's dtype, (C, 256): quantized as a tensor would be."""
    return _native_values(preprocess.table(), source)


def _native_values(values: Tensor, source: NativeTensor) -> Batch:
    """Return values in the input's dtype: an integer input has the nearest code."""
    if not source.scale:
        return values.astype(source.dtype)
    limits = np.iinfo(source.dtype)
    codes = np.rint(values / np.float32(source.scale)) + source.zero_point
    return np.asarray(np.clip(codes, limits.min, limits.max), source.dtype)
