"""Training with the plan that ships: the scales that were learned are those of the files."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec
import onnx
import safetensors.torch
import torch
from numpy.typing import NDArray

from ..calibration.collect import model_hash
from ..calibration.table import CalibrationTable
from ..calibration.table_file import write_table
from ..compress.distillation import Lesson, Objective
from ..compress.quantized_module import QuantizedModule, with_constants
from ..core.errors import CheckFailedError
from ..core.files import write_atomic
from ..core.progress import Progress, Quiet
from ..core.values import StepCheck
from ..models.trained import GRAPH, SIMULATION, TABLE, WEIGHTS, TrainingRecord
from ..training import Epoch, Fit
from ..training.checkpoint import read_state
from ..training.distributed import process_group
from ..training.loop import LAST
from ..training.plan import Plan
from .artefacts import noise_limit
from .compared import Accuracy, Difference, Rights, accuracy, difference, rights
from .graph import CheckedGraph, OnnxRunner, check_step, checked_graph, run_onnx
from .precision.source import Source
from .qat_setup import QatOptions, QatReady, observed, prepare_qat
from .sources import torch_threads
from .timing import Stages
from .train import check_training_out, learn, memory_errors, planned

COMPARISON: Final = "qat.json"
_TURNS: Final = 4


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the table.

    Attributes:
        who: ``float``, ``PTQ`` (the ranges of calibration) or ``QAT``.
        target: Whose scheme; None of the float model before training.
        trained: Whether the training was for this scheme.
        accuracy: On the images that judge, of the graph with codes as ONNX Runtime runs it.
        gain: QAT's less this one's: for float that of the trained scheme, for PTQ that of the same
            target; None of QAT itself.
    """

    who: str
    target: str | None
    trained: bool
    accuracy: Accuracy
    gain: Difference | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QatResult:
    """What a quantization-aware training gave.

    Attributes:
        rows: Who is how often right; none where no image judges.
        record: What ``train.json`` says.
        leads: Whether this process is the one that speaks.
    """

    rows: tuple[Judged, ...]
    record: TrainingRecord
    leads: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class QatPlan:
    """What it would do.

    Attributes:
        training: The training.
        target: Whose scheme.
        points: Scales of activations that learn.
        layers: Convolutions and products whose weights are rounded.
        also: Targets that get the same ranges under another scheme.
    """

    training: Plan
    target: str
    points: int
    layers: int
    also: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finished:
    """A model that was trained.

    Attributes:
        graph: Its float graph, as export will make it.
        table: Its ranges.
        simulation: The graph with the codes that were trained.
        steps: What was compared.
    """

    graph: CheckedGraph
    table: CalibrationTable
    simulation: onnx.ModelProto
    steps: tuple[StepCheck, ...]


def plan(options: QatOptions, progress: Progress) -> QatPlan:
    """Return what a training would do; nothing is written.

    Raises:
        EdgeclsError: What the training itself would raise before its first step.
    """
    with process_group(options.train.device) as group, torch_threads(options.train.threads):
        resume = check_training_out(options.train)
        ready = prepare_qat(options, group, progress)
        if resume:
            identity = {**ready.prepared.identity, "quantization": ready.identity}
            read_state(options.train.out / LAST, identity)
        training = planned(ready.prepared, group)
    layers = Source(model=ready.graph.model, table=ready.table.ranges()).layers()
    return QatPlan(
        training=replace(training, macs=sum(layer.macs for layer in layers)),
        target=ready.targets[0].name,
        points=len(ready.module.origins),
        layers=len(layers),
        also=tuple(target.name for target in ready.targets[1:]),
    )


def qat(
    options: QatOptions, progress: Progress, on_epoch: Callable[[Epoch], None] | None = None
) -> QatResult:
    """Train a model as the first target quantizes it, and write a folder that export takes.

    OUT gets what ``train`` writes, and model.onnx (the float graph with the trained weights),
    table.json (its ranges), simulation.onnx (with codes) and qat.json (the comparison).

    Raises:
        EdgeclsError: With the cause's exit code; the last good checkpoint is kept.
        KeyboardInterrupt: It was asked to stop; what was done is saved.
    """
    train = options.train
    with (
        process_group(train.device) as group,
        memory_errors(train.settings),
        torch_threads(train.threads),
    ):
        resume = check_training_out(train)
        shown = progress if group.leads else Quiet()
        ready = prepare_qat(options, group, shown)
        result = learn(
            ready.prepared, group, shown, on_epoch, resume=resume,
            adapt=lambda training: _adapted(training, ready),
        )  # fmt: skip
        rows: tuple[Judged, ...] = ()
        if group.leads:
            done = _finish(ready, shown)
            if ready.prepared.data.val is not None:
                shown.step("judge all on the same images")
                rows = _rows(ready, done)
            _write(ready, done, rows)
        group.wait()
        return QatResult(rows=rows, record=result.record, leads=group.leads)


def _adapted(training: Fit, ready: QatReady) -> Fit:
    """Return a training with the float model's answers in it, where there is a lesson."""
    adapted = replace(training, identity={**training.identity, "quantization": ready.identity})
    lesson = ready.options.lesson
    return adapted if lesson is None else _taught(adapted, ready.module, lesson)


def _taught(training: Fit, module: QuantizedModule, lesson: Lesson) -> Fit:
    teacher = copy.deepcopy(module).to(training.group.device).eval().requires_grad_(False)
    teacher.quantizes = False

    def batches(epoch: int) -> Iterator[tuple[NDArray[Any], ...]]:
        for images, labels in training.train(epoch):
            with torch.no_grad():
                taught = teacher(torch.as_tensor(images).to(training.group.device))
            yield images, labels, taught.cpu().numpy()

    return replace(training, train=batches, objective=Objective(lesson=lesson))


def _finish(ready: QatReady, progress: Progress) -> _Finished:
    """Make of the best epoch's weights what export will make of them, and compare.

    Raises:
        CheckFailedError: The graph with codes is not the module that was trained.
    """
    progress.step("put the trained scales into the graph")
    prepared, module, target = ready.prepared, ready.module, ready.targets[0]
    best = safetensors.torch.load((prepared.options.out / WEIGHTS).read_bytes())
    module.cpu().load_state_dict(best, strict=True)
    module.eval()
    with torch.inference_mode():
        expected = module(torch.from_numpy(ready.samples)).numpy()
    graph = _as_exported(ready, with_constants(ready.graph.model, module.constants()))
    table = observed(ready.options, graph, prepared.data, progress)
    learned = module.ranges()
    missing = sorted(learned.keys() - table.tensors.keys())
    if missing:
        raise CheckFailedError(
            f"the trained graph lacks tensor {missing[0]!r}, whose scale learned"
        )
    table = msgspec.structs.replace(table, learned=learned)
    simulation = Source(model=graph.model, table=table.ranges()).quantize(target.scheme).model
    found = run_onnx(simulation, ready.samples)
    noise = check_step("quantize", "the trained float graph", run_onnx(graph.model, ready.samples),
                       found, None)  # fmt: skip
    same = check_step(
        "simulate", "the trained module", expected, found, noise_limit(target, "int8", [noise])
    )
    return _Finished(graph=graph, table=table, simulation=simulation, steps=(noise, same))


def _as_exported(ready: QatReady, model: onnx.ModelProto) -> CheckedGraph:
    """Return a graph that export's chain leaves as it is, so that the table is for what it sees.

    Raises:
        CheckFailedError: There is none.
    """
    prepared = ready.prepared
    for _ in range(_TURNS):
        data = model.SerializeToString(deterministic=True)
        graph = checked_graph(
            replace(prepared.loaded, module=None, onnx=data),
            preprocess=prepared.data.preprocess, size=prepared.data.size, tensors=ready.samples,
            stages=Stages(Quiet()),
        )  # fmt: skip
        if model_hash(graph.model) == model_hash(model):
            return graph
        model = graph.model
    raise CheckFailedError("simplifying the trained graph does not come to an end")


def _rows(ready: QatReady, done: _Finished) -> tuple[Judged, ...]:
    before = Source(model=ready.graph.model, table=ready.table.ranges())
    after = Source(model=done.graph.model, table=done.table.ranges())
    rows: list[Judged] = []
    for index, target in enumerate(ready.targets):
        plain = _rights(ready, before.quantize(target.scheme).model)
        learned = _rights(ready, after.quantize(target.scheme).model)
        if index == 0:
            known = _rights(ready, ready.graph.model)
            rows.append(
                Judged(who="float", target=None, trained=False, accuracy=accuracy(known),
                       gain=difference(learned, known))
            )  # fmt: skip
        name, trained = target.name, _same_plan(ready, index)
        rows.append(
            Judged(who="PTQ", target=name, trained=trained, accuracy=accuracy(plain),
                   gain=difference(learned, plain))
        )  # fmt: skip
        rows.append(Judged(who="QAT", target=name, trained=trained, accuracy=accuracy(learned)))
    return tuple(rows)


def _same_plan(ready: QatReady, index: int) -> bool:
    first, other = (
        msgspec.structs.replace(ready.targets[i].scheme, codes="int8") for i in (0, index)
    )
    return first == other


def _rights(ready: QatReady, model: onnx.ModelProto) -> Rights:
    data = ready.prepared.data
    assert data.val is not None
    run = OnnxRunner(model, ready.options.train.threads or 0)
    return rights(
        lambda pixels: run(data.preprocess.normalize(pixels)), data.preprocess, data.size,
        data.val, workers=data.workers, cache=data.opened.cache,
    )  # fmt: skip


def _write(ready: QatReady, done: _Finished, rows: tuple[Judged, ...]) -> None:
    out = ready.prepared.options.out
    record = ready.prepared.record
    document = {"quantization": ready.identity, "judged_by": record.val, "rows": rows,
                "steps": done.steps}  # fmt: skip
    encoded = msgspec.json.format(msgspec.json.encode(document), indent=2)
    write_atomic(out / COMPARISON, encoded + b"\n")
    write_table(out / TABLE, done.table)
    write_atomic(out / SIMULATION, done.simulation.SerializeToString(deterministic=True))
    write_atomic(out / GRAPH, done.graph.model.SerializeToString(deterministic=True))
