"""One interface on every device: images in, predictions out."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from ..bundle import Bundle
from ..bundle.manifest import Artefact
from ..core.errors import BadInputError, BundleError, ImageError, UsageError
from ..core.progress import Gauge
from ..core.values import Logits, Pixels, Precision, Tensor
from ..targets.target import BackendName
from .backend import Backend, Batch, EngineUse
from .engine_options import DEFAULT, EngineOptions
from .images import MAX_PIXELS, ImageSource, decode_image, name_of
from .prediction import Prediction, rank
from .preprocess import decoded_to_pixels
from .selection import Choice, open_choice, select

# One waits and one is decoded while one runs; more would make a camera's answers late.
_AHEAD: Final = 1

MAX_THREADS: Final = 256


class Prepared(NamedTuple):
    """An image that is ready to run.

    Attributes:
        name: What the prediction calls it.
        pixels: Shape (H, W, C), uint8.
        speed_ms: What decoding and preprocessing took.
    """

    name: str
    pixels: Pixels
    speed_ms: dict[str, float]


@dataclass(frozen=True, slots=True)
class _End:
    """The source of a stream ended, or raised."""

    error: BaseException | None


class Predictor:
    """A loaded bundle; safe to use from several threads.

    Attributes:
        bundle: What was loaded.
        artefact: The file of it that runs.
        backend: What runs it.
        description: For humans: library, version, device.
        problem: What is wrong with this machine though the answers are right, else None.
        fell_back: Why another backend than the target's own runs, else None.
        threads: That it was given; None where the runtime chose.
        engine: The TensorRT engine that runs, where it is one.
    """

    def __init__(
        self, bundle: Bundle, choice: Choice, backend: Backend, threads: int | None = None
    ) -> None:
        self.bundle = bundle
        self.artefact: Artefact = choice.artefact
        self.backend: BackendName = choice.backend
        self.description = backend.description
        self.problem = backend.problem
        self.fell_back = choice.fell_back
        self.threads = threads
        self.engine: EngineUse | None = backend.engine
        self._backend = backend
        self._preprocess = bundle.manifest.preprocess
        self._labels = bundle.manifest.labels

    @property
    def precision(self) -> Precision:
        """The precision of what runs."""
        return self.artefact.precision

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) in px of the pixels that the model takes."""
        return self._backend.input_size

    @property
    def max_batch(self) -> int | None:
        """The most images that the model runs at once; None where nothing bounds it."""
        return self._backend.max_batch

    def predict(self, image: ImageSource, topk: int = 5, *, logits: bool = False) -> Prediction:
        """Classify an image.

        Args:
            image: A path, a file's bytes, a Pillow image, or codes (H, W, 3) uint8 in RGB order.
            topk: How many classes to return; all where there are fewer.
            logits: Whether the prediction carries the model's outputs.

        Raises:
            ImageError: The image cannot be used.
        """
        _check_topk(topk)
        return self._classify(self.prepare(image), topk, logits)

    def predict_batch(
        self, images: Sequence[ImageSource], topk: int = 5, *, logits: bool = False
    ) -> list[Prediction]:
        """Classify images, several at once where the backend can.

        Raises:
            ImageError: One of the images cannot be used; ``predict_stream`` goes on.
        """
        _check_topk(topk)
        ready = [self.prepare(image) for image in images]
        if not ready:
            return []
        start = time.perf_counter()
        found = self._backend.logits(np.stack([image.pixels for image in ready]))
        share = {"inference": _since(start) / len(ready)}
        return [
            self.finish(image, row, share, topk, logits=logits)
            for image, row in zip(ready, found, strict=True)
        ]

    def predict_stream(
        self, images: Iterable[ImageSource], topk: int = 5, *, logits: bool = False
    ) -> Iterator[Prediction | ImageError]:
        """Classify images one after the other, in order, without keeping them.

        ``images`` is read and decoded in a thread, at most two images ahead of the one that runs;
        it may be endless. What it raises is raised here, after the answers to what it gave.

        Yields:
            A prediction, or the ImageError of an image that cannot be used.
        """
        _check_topk(topk)
        return self._stream(iter(images), topk, logits)

    def logits(self, pixels: Pixels) -> Logits:
        """Return (N, classes) float32 for pixels (N, H, W, C) uint8 as ``to_pixels`` gives them."""
        return self._backend.logits(pixels)

    def logits_of_tensor(self, tensor: Tensor) -> Logits:
        """Return (N, classes) float32 for normalised images (N, C, H, W) float32, in any runtime.

        ``Preprocess.normalize`` makes such a tensor of pixels; the logits are then those of the
        pixels, to the last bit.

        Raises:
            BadInputError: Another shape or dtype, or a NaN or an infinity.
        """
        return self._backend.logits_of_tensor(tensor)

    def tensors(self, pixels: Pixels) -> Batch:
        """Return what the model is fed for such pixels, in its own dtype and layout."""
        return self._backend.tensors(pixels)

    def close(self) -> None:
        """Give back the device's memory; the predictor cannot be used afterwards."""
        self._backend.close()

    def _stream(
        self, images: Iterator[ImageSource], topk: int, logits: bool
    ) -> Iterator[Prediction | ImageError]:
        ready: queue.Queue[Prepared | ImageError | _End] = queue.Queue(_AHEAD)
        stopped = threading.Event()

        def put(item: Prepared | ImageError | _End) -> bool:
            while not stopped.is_set():
                with contextlib.suppress(queue.Full):
                    ready.put(item, timeout=0.05)
                    return True
            return False

        def read() -> None:
            # Here and not where the results are taken: a source that waits, as a camera does, must
            # not hold back the answer to the frame before.
            error: BaseException | None = None
            try:
                for image in images:
                    if not put(self._prepare_or_error(image)):
                        return
            except BaseException as raised:
                error = raised
            put(_End(error))

        thread = threading.Thread(target=read, name="edgecls-decode", daemon=True)
        thread.start()
        try:
            while not isinstance(item := ready.get(), _End):
                if isinstance(item, ImageError):
                    yield item
                else:
                    yield self._classify(item, topk, logits)
            if item.error is not None:
                raise item.error
        finally:
            stopped.set()
            thread.join(timeout=0.5)

    def prepare(
        self, image: ImageSource, *, name: str | None = None, max_pixels: int = MAX_PIXELS
    ) -> Prepared:
        """Read an image and bring it to the model's size: the part of ``predict`` before it runs.

        Args:
            image: As for ``predict``.
            name: What the prediction and errors call it; by default its path, or "image".
            max_pixels: A file whose header announces more is not decoded.

        Raises:
            ImageError: The image cannot be used.
        """
        called = name or name_of(image)
        start = time.perf_counter()
        decoded = decode_image(image, self._preprocess, name=called, max_pixels=max_pixels)
        decode = _since(start)
        start = time.perf_counter()
        pixels = decoded_to_pixels(called, decoded, self._preprocess, size=self.input_size)
        return Prepared(called, pixels, {"decode": decode, "preprocess": _since(start)})

    def finish(
        self,
        image: Prepared,
        row: Logits,
        speed_ms: Mapping[str, float],
        topk: int = 5,
        *,
        logits: bool = False,
    ) -> Prediction:
        """Return the prediction for one image's logits: the part of ``predict`` after it ran.

        Args:
            image: What ``prepare`` gave.
            row: Its logits, shape (classes,).
            speed_ms: What the stages between took.
            topk: How many classes to return; all where there are fewer.
            logits: Whether the prediction carries ``row``.

        Raises:
            BundleError: The logits hold a NaN or an infinity.
        """
        _check_topk(topk)
        start = time.perf_counter()
        ranked = rank(row, self._labels, topk)
        return Prediction(
            image=image.name,
            topk=ranked,
            speed_ms={**image.speed_ms, **speed_ms, "postprocess": _since(start)},
            logits=tuple(row.tolist()) if logits else None,
        )

    def _prepare_or_error(self, image: ImageSource) -> Prepared | ImageError:
        try:
            return self.prepare(image)
        except ImageError as error:
            return error

    def _classify(self, image: Prepared, topk: int, logits: bool) -> Prediction:
        start = time.perf_counter()
        row = self._backend.logits(image.pixels[None])[0]
        return self.finish(image, row, {"inference": _since(start)}, topk, logits=logits)


def load(
    bundle: str | os.PathLike[str] | Bundle,
    *,
    backend: BackendName | None = None,
    precision: Precision | None = None,
    allow_fallback: bool = False,
    threads: int | None = None,
    engine: EngineOptions = DEFAULT,
    progress: Gauge | None = None,
) -> Predictor:
    """Load a bundle into the backend of its target that is installed here.

    Args:
        bundle: A bundle's folder or zip file, or an open bundle.
        backend: Runs, or an error says why not; by default the target's first that can run here.
        precision: Of the artefact; by default the bundle's own.
        allow_fallback: Where no backend of the target can run here, a simulation on this machine
            takes its place; ``fell_back`` says so.
        threads: For a CPU; None leaves it to the runtime.
        engine: How a TensorRT engine is built and run.
        progress: Shows how far the building of an engine is, and takes notices.

    Raises:
        BundleError: The bundle is damaged, or has nothing that the backend runs.
        MissingError: No backend can run here; the message says why, for each.
        UsageError: The backend or the precision is none that there is.
    """
    if threads is not None and not 1 <= threads <= MAX_THREADS:
        raise UsageError(f"threads must lie in 1..{MAX_THREADS}, found {threads}")
    opened = bundle if isinstance(bundle, Bundle) else Bundle(Path(bundle))
    choice = select(
        opened,
        backend=backend,
        precision=precision,
        allow_fallback=allow_fallback,
        engine=engine,
    )
    choice, running = open_choice(opened, choice, threads=threads, engine=engine, progress=progress)
    if running.classes != opened.manifest.num_classes:
        raise BundleError(
            f"{opened.path}: {choice.artefact.path} has {running.classes} outputs, the manifest "
            f"says {opened.manifest.num_classes}; export the bundle again"
        )
    return Predictor(opened, choice, running, threads)


def _check_topk(topk: int) -> None:
    if topk < 1:
        raise BadInputError(f"topk must be 1 or more, found {topk}")


def _since(start: float) -> float:
    """Return the milliseconds since ``start``."""
    return (time.perf_counter() - start) * 1e3
