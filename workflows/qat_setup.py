"""What a quantization-aware training begins with: the graph that ships, its ranges, its module."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import torch

from ..calibration.collect import model_hash
from ..calibration.placement.learned import place_learned
from ..calibration.table import CalibrationTable
from ..calibration.table_file import read_table
from ..compress.distillation import Lesson
from ..compress.quantized_module import QuantizedModule
from ..core.errors import CalibrationError, ImageError, UsageError
from ..core.preprocess import Preprocess, resolve_preprocess
from ..core.progress import Progress
from ..core.ranges import CalibrationMethod
from ..core.values import Tensor
from ..data.dataset import Dataset
from ..data.images import list_images, select_images
from ..export.passes import for_one_image
from ..models import LoadedModel, load_model
from ..models.trained import QuantizationRecord, is_trained
from ..runtimes.preprocess import to_pixels
from ..targets import Target, get_target
from ..training.distributed import Group
from .calibrate import calibrate, table_of
from .graph import STEP_LIMIT, CheckedGraph, check_step, checked_graph, resolve_input, run_onnx
from .sketch import Sketch
from .timing import Stages
from .train import Prepared, TrainOptions, record_of
from .training_data import TrainingData, bind, open_data

SAMPLES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class QatOptions:
    """What to train for which target, as the command line has it.

    Attributes:
        train: The model, its data, and how it learns.
        targets: The first one's scheme is trained; the others get the same ranges under theirs.
        calib: A folder of images that give the first ranges; None takes some to learn from.
        calib_images: How many.
        calib_table: A table of ``edgecls calibrate``, which gives the first ranges instead.
        method: How ranges are chosen.
        lesson: How much is learned from the float model's answers; None is nothing.
    """

    train: TrainOptions
    targets: tuple[str, ...]
    calib: Path | None = None
    calib_images: int = 100
    calib_table: Path | None = None
    method: CalibrationMethod = "minmax"
    lesson: Lesson | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QatReady:
    """A quantized module and its data, ready to train.

    Attributes:
        options: What was asked for.
        targets: Of which the first is trained for.
        prepared: What ``train`` trains; its module is ``module``.
        graph: The float graph as it was.
        table: Its first ranges.
        module: What learns.
        samples: A few images, shape (N, C, H, W).
    """

    options: QatOptions
    targets: tuple[Target, ...]
    prepared: Prepared
    graph: CheckedGraph
    table: CalibrationTable
    module: QuantizedModule
    samples: Tensor

    @property
    def identity(self) -> dict[str, Any]:
        """What must be the same for the same numbers, beside the training's own."""
        lesson = self.options.lesson
        return {
            "target": self.targets[0].name,
            "scheme": msgspec.to_builtins(self.targets[0].scheme),
            "graph_sha256": self.table.model_sha256,
            "ranges_sha256": self.table.ranges().sha256(),
            "teacher_alpha": 0.0 if lesson is None else lesson.alpha,
            "temperature": None if lesson is None else lesson.temperature,
        }


def check_qat(options: QatOptions) -> tuple[Target, ...]:
    """Return the targets, each once.

    Raises:
        UsageError: The options contradict each other, whatever the model.
    """
    targets = tuple(get_target(name) for name in dict.fromkeys(options.targets))
    if not targets:
        raise UsageError("no target; give --target at least once")
    if options.train.freeze is not None:
        raise UsageError("--freeze names layers of a torch model, which are folded here")
    if options.calib is not None and options.calib_table is not None:
        raise UsageError("--calib and --calib-table both give the first ranges; leave one out")
    if options.calib_images < 1:
        raise UsageError(f"--calib-images must be 1 or more, found {options.calib_images}")
    for target in targets:
        if "int8" not in target.precisions:
            raise UsageError(f"{target.name} does not run int8")
    return targets


def prepare_qat(options: QatOptions, group: Group, progress: Progress) -> QatReady:
    """Load the model, make the graph that ships, find its ranges and put the scales in.

    Raises:
        UsageError: The options contradict each other, or the model cannot be quantized by them.
        EdgeclsError: Something cannot be used.
    """
    # Sixteen bits of mantissa do not hold the codes of eight and their rounding.
    settings = msgspec.structs.replace(options.train.settings, amp=False)
    train = replace(options.train, settings=settings)
    targets = check_qat(options)
    opened = open_data(train.data, settings.seed, progress)
    loaded = _load(train, opened.train, progress)
    given = resolve_preprocess(train.preprocess) if train.preprocess else None
    preprocess, size = resolve_input(loaded, given)
    data = bind(opened, train.data, preprocess, size, settings)
    samples = preprocess.normalize(np.stack([pixels for _, pixels in _some(data, SAMPLES)]))
    graph = checked_graph(
        loaded, preprocess=preprocess, size=size, tensors=samples, stages=Stages(progress)
    )
    if graph.quantized:
        raise UsageError(f"{train.model} is quantized already; give the float model")
    if graph.num_classes != len(data.train.classes):
        raise UsageError(
            f"{train.model} has {graph.num_classes} outputs, {data.train.name} "
            f"{len(data.train.classes)} classes; train it on these classes first: edgecls train"
        )
    progress.step("calibrate")
    table = _first_table(options, graph, data, preprocess, size, progress)
    placement = place_learned(for_one_image(graph.model), table.ranges(), targets[0].scheme)
    module = QuantizedModule(placement)
    _check_module(module, graph, samples)
    record = msgspec.structs.replace(
        record_of(train, loaded, data, train.model, group),
        parameters=sum(value.numel() for value in module.weights),
        quantized=QuantizationRecord(
            target=targets[0].name, scheme=targets[0].scheme, points=len(module.origins)
        ),
    )
    prepared = Prepared(options=train, loaded=loaded, module=module, data=data, record=record)
    ready = QatReady(
        options=options, targets=targets, prepared=prepared, graph=graph, table=table,
        module=module, samples=samples,
    )  # fmt: skip
    config = {**record.config, "quantization": ready.identity}
    record = msgspec.structs.replace(record, config=config)
    return replace(ready, prepared=replace(prepared, record=record))


def observed(
    options: QatOptions, graph: CheckedGraph, data: TrainingData, progress: Progress
) -> CalibrationTable:
    """Return the table of a float graph over the images that calibrate.

    Raises:
        CalibrationError: None can be read, or the graph gives a NaN.
    """
    preprocess, size, seed = data.preprocess, data.size, data.settings.seed
    if options.calib is not None:
        chosen = select_images(list_images(options.calib), options.calib_images, seed)
        return calibrate(
            graph.model, chosen, preprocess=preprocess, size=size, method=options.method,
            seed=seed, progress=progress,
        )  # fmt: skip
    sketch = Sketch(preprocess.channels)

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for digest, pixels in _some(data, options.calib_images):
            sketch.add_pixels(pixels)
            yield digest, preprocess.normalize(pixels[None])

    return table_of(
        graph.model, tensors(), sketch, preprocess=preprocess, size=size, method=options.method,
        seed=seed,
    )  # fmt: skip


def _load(train: TrainOptions, images: Dataset, progress: Progress) -> LoadedModel:
    path = Path(train.model)
    finished = path.suffix.lower() in {".onnx", ".pt2"} or is_trained(path)
    loaded = load_model(
        train.model, weights=train.weights, seed=train.settings.seed,
        num_classes=None if finished else len(images.classes),
    )  # fmt: skip
    for note in loaded.notes:
        progress.note(note)
    if loaded.random_weights:
        raise UsageError(
            f"{train.model} has learned nothing that quantization could lose: give --weights FILE, "
            "or a folder of edgecls train"
        )
    if loaded.quantized is not None:
        raise UsageError(
            f"{train.model} was trained by edgecls qat; name the model that it was made from, with "
            "more --epochs"
        )
    if loaded.labels is not None and loaded.labels != images.classes:
        raise UsageError(f"{train.model} knows other classes than {images.name}")
    return loaded


def _first_table(
    options: QatOptions, graph: CheckedGraph, data: TrainingData, preprocess: Preprocess,
    size: tuple[int, int], progress: Progress,
) -> CalibrationTable:  # fmt: skip
    if options.calib_table is None:
        return observed(options, graph, data, progress)
    table = read_table(options.calib_table)
    table.check(model_sha256=model_hash(graph.model), preprocess=preprocess, size=size)
    return table


def _some(data: TrainingData, count: int) -> Iterator[tuple[str, Any]]:
    """Yield the hash and the pixels of images to learn from, which the seed chooses."""
    images, found = data.train, 0
    order = np.random.default_rng(data.settings.seed).permutation(len(images))
    for index in order.tolist():
        try:
            pixels = to_pixels(images.source(index), data.preprocess, size=data.size)
            digest = images.digest(index)
        except (ImageError, OSError):
            continue  # the loader says so when its batch comes
        yield digest, pixels
        found += 1
        if found == count:
            return
    if not found:
        raise CalibrationError(f"{images.name}: no image can be read")


def _check_module(module: QuantizedModule, graph: CheckedGraph, samples: Tensor) -> None:
    """Refuse a module that is not the graph.

    Raises:
        CheckFailedError: It answers otherwise.
        UnsupportedOperatorError: torch does not take a node.
    """
    module.eval()
    module.quantizes = False
    with torch.inference_mode():
        found = module(torch.from_numpy(samples)).numpy()
    module.quantizes = True
    expected = run_onnx(graph.model, samples)
    check_step("onnx-to-torch", "the float graph", expected, found, STEP_LIMIT)
