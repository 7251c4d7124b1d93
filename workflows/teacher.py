"""A model that others learn from: its answers, live or kept in a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from ..compress.distillation import Watched
from ..core.errors import CheckpointError, DataError, ModelError, UsageError
from ..core.files import atomic_file, sha256_bytes
from ..core.preprocess import Preprocess, resolve_preprocess
from ..core.progress import Progress
from ..core.values import Logits, Pixels
from ..data.labels import Labels
from ..data.loader import Loader
from ..data.truth import match_classes
from ..models import load_model
from ..models.trained import is_trained
from ..training.distributed import Group
from .graph import OnnxRunner, resolve_input, run_torch
from .softmax import is_probabilities
from .training_data import TrainingData, describe_data

if TYPE_CHECKING:
    from ..models import LoadedModel

_BATCH: Final = 64
_SMALLEST: Final = 1e-30


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherOptions:
    """Whose answers are learned.

    Attributes:
        model: A zoo's name, a folder of ``edgecls train``, or a .pt2 or .onnx file.
        weights: Its weights file.
        preprocess: A preset or a TOML file; None is the model's own, or else the student's.
    """

    model: str
    weights: Path | None = None
    preprocess: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """Answers in the order of a data set's classes.

    Attributes:
        name: As the user called it.
        sha256: Of its weights.
        parameters: How many numbers it learned; None for ONNX.
        preprocess: What its images go through.
        size: (height, width) in px.
        outputs: Which of its outputs is each class of the data.
        maps: Its layers that hints look at.
        run: From pixels (N, H, W, C) to all its outputs.
    """

    name: str
    sha256: str
    parameters: int | None
    preprocess: Preprocess
    size: tuple[int, int]
    outputs: NDArray[np.int64]
    maps: Watched | None
    run: Callable[[Pixels], Logits]

    def __call__(self, pixels: Pixels) -> Logits:
        """Return logits (N, classes) for pixels (N, H, W, C); of probabilities, their logarithms.

        Raises:
            ModelError: An answer is NaN or infinite.
        """
        found = self.run(pixels)
        if is_probabilities(found):  # a logarithm gives logits but for a constant per image
            found = np.log(np.maximum(found, _SMALLEST)).astype(np.float32)
        found = found[:, self.outputs]
        if not np.isfinite(found).all():
            raise ModelError(f"the teacher {self.name} answers with NaN or infinity")
        return found

    def sees(self, preprocess: Preprocess, size: tuple[int, int]) -> bool:
        """Return whether the pixels that such a model takes are this one's, up to normalisation."""
        mine = msgspec.structs.replace(
            self.preprocess, scale=preprocess.scale, mean=preprocess.mean, std=preprocess.std
        )
        return mine == preprocess and self.size == size


@contextmanager
def opened_teacher(
    options: TeacherOptions, data: TrainingData, layers: tuple[str, ...], group: Group,
    progress: Progress,
) -> Iterator[Teacher]:  # fmt: skip
    """Open a teacher for a data set.

    Args:
        options: Which.
        data: What is taught about; its preprocessing is the teacher's where nothing else is known.
        layers: That hints look at.
        group: On whose device it computes.
        progress: Hears how classes were matched.

    Raises:
        EdgeclsError: It cannot be opened, knows nothing, or other classes.
    """
    path = Path(options.model)
    brings_head = path.suffix.lower() in {".pt2", ".onnx"} or is_trained(path)
    classes = None if brings_head else len(data.train.classes)
    loaded = load_model(options.model, weights=options.weights, num_classes=classes)
    if loaded.random_weights:
        raise UsageError(
            f"the teacher {options.model} has random weights: nothing is downloaded; give "
            "--teacher-weights FILE"
        )
    given = resolve_preprocess(options.preprocess) if options.preprocess else None
    if given is None and loaded.preprocess is None:
        given = data.preprocess
        progress.note(f"{options.model} says no preprocessing: it gets the student's")
    preprocess, size = resolve_input(loaded, given)
    if layers and (loaded.module is None or options.model.endswith(".pt2")):
        raise UsageError(
            f"--hint: {options.model} is a finished graph, whose layers cannot be watched"
        )
    maps = None if not layers else Watched(_module(loaded), layers, "teacher")
    try:
        run = _runner(loaded, preprocess, group)
        blank = run(np.zeros((1, *size, preprocess.channels), np.uint8))
        if maps is not None:
            maps.take()
        if blank.ndim != 2:
            raise ModelError(f"{options.model}: expected logits (N, classes), found {blank.shape}")
        names = None if loaded.labels is None else Labels(names=loaded.labels)
        outputs, how = match_classes(data.train.classes, names, blank.shape[1])
        if names is None and len(data.train.classes) != blank.shape[1]:
            raise DataError(
                f"the teacher {options.model} has {blank.shape[1]} outputs without names, the data "
                f"{len(data.train.classes)} classes: which are which is not known"
            )
        if names is None:
            progress.note(f"teacher: {how}")
        yield Teacher(
            name=options.model, sha256=_sha256(loaded), parameters=loaded.parameters,
            preprocess=preprocess, size=size, outputs=outputs, maps=maps, run=run,
        )  # fmt: skip
    finally:
        if maps is not None:
            maps.close()


def kept_answers(
    teacher: Teacher, data: TrainingData, folder: Path, group: Group, pool: Executor,
    progress: Progress,
) -> Logits:  # fmt: skip
    """Return a teacher's logits for every image to learn from, as it is: without augmentation.

    They are asked for once and kept in ``folder``, in a file named by what they depend on: the data
    (names, sizes and classes of its files), the teacher's weights and its preprocessing.

    Returns:
        Shape (images, classes) float32, mapped from the file; NaN where an image is unreadable.

    Raises:
        CheckpointError: A file of that name is damaged.
    """
    key = sha256_bytes(
        repr(
            (describe_data(data.train).sha256, teacher.sha256, teacher.preprocess, teacher.size,
             teacher.outputs.tolist(), version("torch"))
        ).encode()
    )  # fmt: skip
    file = folder / f"teacher-{key[:16]}.npy"
    if group.leads and not file.exists():
        found = np.full((len(data.train), len(teacher.outputs)), np.nan, np.float32)
        loader = Loader(
            data.train, teacher.preprocess, batch=_BATCH, shuffle=False, size=teacher.size,
            normalize=False, workers=pool, cache=data.opened.cache,
        )  # fmt: skip
        for loaded in progress.track(loader.batches(), "teacher answers", len(loader)):
            assert loaded.images.dtype == np.uint8
            found[loaded.indices] = teacher(loaded.images)  # type: ignore[arg-type]
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(file) as stream:
            np.save(stream, found, allow_pickle=False)
    group.wait()
    shape = (len(data.train), len(teacher.outputs))
    try:
        kept = np.load(file, mmap_mode="r", allow_pickle=False)
        if kept.shape != shape or kept.dtype != np.float32:
            raise ValueError(f"expected float32 {shape}, found {kept.dtype} {kept.shape}")
    except (OSError, ValueError, EOFError) as error:
        raise CheckpointError(
            f"{os.fspath(file)}: not a readable file of answers: {error}; delete it, and the "
            "teacher is asked again"
        ) from error
    answers: Logits = kept
    return answers


def _module(loaded: LoadedModel) -> torch.nn.Module:
    assert loaded.module is not None
    return loaded.module


def _runner(
    loaded: LoadedModel, preprocess: Preprocess, group: Group
) -> Callable[[Pixels], Logits]:
    if loaded.onnx is not None:
        import onnx

        runner = OnnxRunner(onnx.ModelProto.FromString(loaded.onnx), torch.get_num_threads())
        return lambda pixels: runner(preprocess.normalize(pixels))
    if group.device.type == "cuda" and not loaded.source.endswith(".pt2"):
        loaded = replace(loaded, module=_OnDevice(_module(loaded), group.device))
    return lambda pixels: run_torch(loaded, preprocess.normalize(pixels))


class _OnDevice(torch.nn.Module):
    """Computes elsewhere than its images and answers are."""

    def __init__(self, module: torch.nn.Module, device: torch.device) -> None:
        super().__init__()
        self.module, self.device = module.to(device), device

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.module(images.to(self.device))
        return found.float().cpu()


def _sha256(loaded: LoadedModel) -> str:
    """Return a hash of all that was learned, whatever file it came from."""
    if loaded.onnx is not None:
        return sha256_bytes(loaded.onnx)
    parts = [loaded.source.encode()]
    for name, value in sorted(_module(loaded).state_dict().items()):
        numbers = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        parts += [f"{name} {tuple(value.shape)} {value.dtype}".encode(), numbers.tobytes()]
    return sha256_bytes(b"\0".join(parts))
