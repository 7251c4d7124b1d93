"""One interface on every device: images in, predictions out."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np

from ..bundle import Bundle
from ..bundle.manifest import Artefact
from ..core.errors import BadInputError, BundleError, ImageError, UsageError
from ..core.progress import Gauge
from ..core.values import Logits, Pixels, Precision
from ..targets.target import BackendName
from .backend import Backend, Batch, EngineUse
from .engine_options import DEFAULT, EngineOptions
from .images import ImageSource, name_of, read_image
from .prediction import Prediction, rank
from .preprocess import decoded_to_pixels
from .selection import Choice, open_choice, select

# One waits and one is decoded while one runs; more would make a camera's answers late.
_AHEAD: Final = 1

MAX_THREADS: Final = 256

_Ready: TypeAlias = "tuple[str, Pixels, dict[str, float]]"


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
        return self._classify(self._prepare(image), topk, logits)

    def predict_batch(
        self, images: Sequence[ImageSource], topk: int = 5, *, logits: bool = False
    ) -> list[Prediction]:
        """Classify images, several at once where the backend can.

        Raises:
            ImageError: One of the images cannot be used; ``predict_stream`` goes on.
        """
        _check_topk(topk)
        ready = [self._prepare(image) for image in images]
        if not ready:
            return []
        start = time.perf_counter()
        found = self._backend.logits(np.stack([pixels for _, pixels, _ in ready]))
        share = _since(start) / len(ready)
        return [
            self._finish(name, {**speed, "inference": share}, row, topk, logits)
            for (name, _, speed), row in zip(ready, found, strict=True)
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

    def tensors(self, pixels: Pixels) -> Batch:
        """Return what the model is fed for such pixels, in its own dtype and layout."""
        return self._backend.tensors(pixels)

    def close(self) -> None:
        """Give back the device's memory; the predictor cannot be used afterwards."""
        self._backend.close()

    def _stream(
        self, images: Iterator[ImageSource], topk: int, logits: bool
    ) -> Iterator[Prediction | ImageError]:
        ready: queue.Queue[_Ready | ImageError | _End] = queue.Queue(_AHEAD)
        stopped = threading.Event()

        def put(item: _Ready | ImageError | _End) -> bool:
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

    def _prepare_or_error(self, image: ImageSource) -> _Ready | ImageError:
        try:
            return self._prepare(image)
        except ImageError as error:
            return error

    def _prepare(self, image: ImageSource) -> _Ready:
        name = name_of(image)
        start = time.perf_counter()
        decoded = read_image(image, self._preprocess)
        decode = _since(start)
        start = time.perf_counter()
        pixels = decoded_to_pixels(name, decoded, self._preprocess, size=self.input_size)
        return name, pixels, {"decode": decode, "preprocess": _since(start)}

    def _classify(self, ready: _Ready, topk: int, logits: bool) -> Prediction:
        name, pixels, speed = ready
        start = time.perf_counter()
        row = self._backend.logits(pixels[None])[0]
        return self._finish(name, {**speed, "inference": _since(start)}, row, topk, logits)

    def _finish(
        self, name: str, speed: dict[str, float], row: Logits, topk: int, logits: bool
    ) -> Prediction:
        start = time.perf_counter()
        ranked = rank(row, self._labels, topk)
        return Prediction(
            image=name,
            topk=ranked,
            speed_ms={**speed, "postprocess": _since(start)},
            logits=tuple(row.tolist()) if logits else None,
        )


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
