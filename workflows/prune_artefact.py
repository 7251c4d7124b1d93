"""What a pruned model is as a file on its target: made, compared, weighed and timed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import torch
from torch import nn

from ..core.errors import MissingError
from ..core.preprocess import Preprocess
from ..core.progress import Progress, Quiet
from ..core.values import CALIBRATED, Logits, Precision
from ..data.dataset import Dataset
from ..data.images import ImageFile, select_images
from ..models import LoadedModel
from ..runtimes.backend import Backend, Options
from ..runtimes.backends import formats_of, open_backend, why_not
from ..runtimes.preprocess import pixels_to_png
from ..targets import Target
from ..targets.target import BackendName
from .artefacts import ArtefactBuilder
from .calibrate import calibrate
from .graph import checked_graph, run_onnx
from .samples import Samples, real_samples, synthetic_samples
from .timing import Stages

_CALIBRATION: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """A model's file as it ships.

    Attributes:
        size_bytes: Of the file.
        backend: Runs it here, on one thread; None where nothing here can.
    """

    size_bytes: int
    backend: Backend | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipping:
    """Makes the file that ships to a target, each step compared as ``edgecls export`` does.

    Attributes:
        loaded: The model before pruning: its name and preprocessing.
        target: What it ships to.
        precision: Of the file.
        preprocess: What images go through.
        size: (height, width) in px.
        images: To calibrate with; none where there is nothing to calibrate.
        samples: Compare the steps, and are what is timed.
        backend: Runs the file here; None where nothing can.
    """

    loaded: LoadedModel
    target: Target
    precision: Precision
    preprocess: Preprocess
    size: tuple[int, int]
    images: tuple[ImageFile, ...]
    samples: Samples
    backend: BackendName | None

    def __call__(self, module: nn.Module) -> Shipped:
        """Export a module on the CPU in evaluation mode.

        Raises:
            EdgeclsError: It cannot be exported, or a step changed what it answers.
        """
        stages = Stages(Quiet())
        tensors = self.preprocess.normalize(self.samples.pixels)
        graph = checked_graph(
            replace(self.loaded, module=module), preprocess=self.preprocess, size=self.size,
            tensors=tensors, stages=stages,
        )  # fmt: skip
        table = None
        if self.precision in CALIBRATED:
            table = calibrate(
                graph.model, self.images, preprocess=self.preprocess, size=self.size,
                method="minmax", seed=0, progress=Quiet(),
            ).ranges(CALIBRATED[self.precision])  # fmt: skip
        builder = ArtefactBuilder(
            graph=graph, table=table, preprocess=self.preprocess, samples=self.samples,
            reference=run_onnx(graph.model, tensors), stages=stages, progress=Quiet(),
        )  # fmt: skip
        built = builder.primary(self.target, self.precision)
        backend = None
        if self.backend is not None:
            options = Options(precision=self.precision, threads=1)
            backend = open_backend(self.backend, built.data, self.preprocess, options)
        return Shipped(size_bytes=len(built.data), backend=backend)

    def logits(self, module: nn.Module) -> Logits:
        """Return a module's logits on the samples, (N, classes) float32."""
        with torch.inference_mode():
            tensors = torch.from_numpy(self.preprocess.normalize(self.samples.pixels))
            found: Logits = module.eval()(tensors).numpy()
        return found


@contextlib.contextmanager
def shipping(
    loaded: LoadedModel, target: Target, precision: Precision, preprocess: Preprocess,
    size: tuple[int, int], dataset: Dataset, *, seed: int, must_run: bool, progress: Progress,
) -> Iterator[Shipping]:  # fmt: skip
    """Choose what exports and times a model, for as long as the images are there.

    Args:
        loaded: The model before pruning.
        target: What it ships to.
        precision: Of the file; the target runs it.
        preprocess: What images go through.
        size: (height, width) in px.
        dataset: Gives images to calibrate with and to time.
        seed: Chooses them.
        must_run: Whether a target whose file cannot run here is an error.
        progress: Hears that nothing can be timed.

    Raises:
        MissingError: ``must_run``, and no backend of the target can run here.
    """
    reasons: dict[BackendName, str | None] = {
        name: why_not(name, precision)
        for name in target.backends
        if target.ships in formats_of(name)
    }
    backend = next((name for name, reason in reasons.items() if reason is None), None)
    if backend is None:
        text = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        if must_run:
            raise MissingError(f"a latency for {target.name} is measured where it runs: {text}")
        progress.note(f"nothing is timed: no file for {target.name} runs here ({text})")
    with TemporaryDirectory(prefix="edgecls-prune-") as folder:
        images = _files(dataset, Path(folder), seed)
        samples = real_samples(images, preprocess, size) or synthetic_samples(
            preprocess, size, seed
        )
        yield Shipping(
            loaded=loaded, target=target, precision=precision, preprocess=preprocess, size=size,
            images=images, samples=samples, backend=backend,
        )  # fmt: skip


def _files(dataset: Dataset, folder: Path, seed: int) -> tuple[ImageFile, ...]:
    """Return a few images as files, those in memory as PNGs in ``folder``."""
    if dataset.files is not None:
        return select_images(dataset.files, _CALIBRATION, seed)
    assert dataset.pixels is not None
    chosen = np.random.default_rng(seed).permutation(len(dataset))[:_CALIBRATION]
    images = []
    for index in sorted(chosen.tolist()):
        file = folder / f"{index}.png"
        file.write_bytes(pixels_to_png(dataset.pixels[index]))
        images.append(ImageFile(path=file, name=file.name))
    return tuple(images)
