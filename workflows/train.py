"""From a folder of images to a folder with a model worth shipping."""

from __future__ import annotations

import contextlib
import importlib.metadata
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import torch

from ..compress.sparsity import keep_zeros
from ..core.errors import MissingError, UsageError
from ..core.files import write_atomic
from ..core.preprocess import resolve_preprocess
from ..core.progress import Progress, Quiet
from ..core.version import VERSION
from ..models import LoadedModel, load_model
from ..models.head import freeze
from ..models.trained import RECORD, WEIGHTS, TrainingRecord, is_trained, read_record, write_record
from ..training import Epoch, Fit, Settings
from ..training.checkpoint import read_state
from ..training.distributed import Group, process_group
from ..training.history import best_epoch
from ..training.loop import LAST
from ..training.plan import Plan, memory_and_macs
from ..training.schedule import make_schedule
from ..training.tensorboard import TensorBoard
from .graph import resolve_input
from .sources import torch_threads
from .training_data import (
    DataChoice,
    OpenedData,
    TrainingData,
    bind,
    describe_data,
    open_data,
)

TOOLS: Final = ("torch", "torchvision", "timm", "numpy", "pillow")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """What to train, as the command line has it.

    Attributes:
        model: An architecture, or ``package.module:callable``.
        data: What to learn from and to judge by.
        settings: The hyperparameters.
        out: The folder to write.
        weights: A checkpoint to start from; a head for other classes is replaced.
        preprocess: A preset's name or a TOML file; None is the model's own.
        freeze: What does not learn: ``backbone`` or a pattern of names.
        resume: Whether to go on from ``out``'s checkpoint.
        device: ``auto``, ``cpu`` or ``cuda``.
        tensorboard: Whether to write for TensorBoard too, to ``out/tensorboard``.
        threads: Of the CPU; another number rounds sums otherwise. None leaves it to torch.
    """

    model: str
    data: DataChoice
    settings: Settings
    out: Path
    weights: Path | None = None
    preprocess: str | None = None
    freeze: str | None = None
    resume: bool = False
    device: str = "auto"
    tensorboard: bool = False
    threads: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """What a training gave.

    Attributes:
        history: Its epochs.
        best: The one whose weights are kept.
        record: What ``train.json`` says.
        leads: Whether this process is the one that speaks.
    """

    history: tuple[Epoch, ...]
    best: Epoch
    record: TrainingRecord
    leads: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A model and its data, ready to train."""

    options: TrainOptions
    loaded: LoadedModel
    module: torch.nn.Module
    data: TrainingData
    record: TrainingRecord

    @property
    def identity(self) -> dict[str, Any]:
        """What must be the same for the same numbers."""
        record = self.record
        found: dict[str, Any] = msgspec.to_builtins(
            {
                "architecture": record.architecture,
                "labels": record.labels,
                "preprocess": record.preprocess,
                "settings": self.options.settings,
                "augment": self.data.augment,
                "freeze": self.options.freeze,
                "initial_weights": record.initial_weights_sha256,
                "train": record.train.sha256,
                "val": record.val and record.val.sha256,
            }
        )
        return found


def plan(options: TrainOptions, progress: Progress) -> Plan:
    """Return what a training would do; nothing is written.

    Raises:
        EdgeclsError: What the training itself would raise before its first step.
    """
    with process_group(options.device) as group:
        resume = check_training_out(options)
        ready = prepare(options, group, progress)
        if resume:
            read_state(options.out / LAST, ready.identity)
        return planned(ready, group)


def planned(ready: Prepared, group: Group) -> Plan:
    """Return what the training of what is ready would do."""
    settings, data, module = ready.options.settings, ready.data, ready.module
    size = (data.preprocess.channels, *data.size)
    memory, macs = memory_and_macs(module, size, settings, group.world)
    schedule = make_schedule(settings, data.steps_per_epoch)
    return Plan(
        settings=settings,
        parameters=sum(value.numel() for value in module.parameters()),
        learning=sum(v.numel() for v in module.parameters() if v.requires_grad),
        macs=macs,
        images=len(data.train),
        judged=0 if data.val is None else len(data.val),
        steps_per_epoch=data.steps_per_epoch,
        warmup_steps=math.ceil(schedule.warmup),
        memory_bytes=memory,
        processes=group.world,
        device=group.device.type,
    )


def train(
    options: TrainOptions, progress: Progress, on_epoch: Callable[[Epoch], None] | None = None
) -> TrainResult:
    """Train a model, and write OUT/model.safetensors, last.ckpt, metrics.csv and train.json.

    Raises:
        EdgeclsError: With the cause's exit code; the last good checkpoint is kept.
        KeyboardInterrupt: It was asked to stop; what was done is saved.
    """
    with (
        process_group(options.device) as group,
        memory_errors(options.settings),
        torch_threads(options.threads),
    ):
        resume = check_training_out(options)
        ready = prepare(options, group, progress if group.leads else Quiet())
        return learn(ready, group, progress, on_epoch, resume=resume)


def learn(
    ready: Prepared, group: Group, progress: Progress,
    on_epoch: Callable[[Epoch], None] | None = None, *, resume: bool,
    adapt: Callable[[Fit], Fit] = lambda training: training,
) -> TrainResult:  # fmt: skip
    """Train what is ready in place, and write its folder.

    Args:
        ready: The model and its data.
        group: The processes that share each batch.
        progress: Shows the steps.
        on_epoch: Called with each epoch.
        resume: Whether to go on from the folder's checkpoint.
        adapt: Changes the training before it begins, such as its loss.

    Raises:
        TrainingError, CheckpointError, ModelError, KeyboardInterrupt: As ``Fit``.
    """
    options, out = ready.options, ready.options.out
    with contextlib.ExitStack() as stack:
        board: TensorBoard | None = None
        if options.tensorboard and group.leads:
            board = TensorBoard(out / "tensorboard", _done_steps(out) if resume else 0)
            stack.callback(board.close)

        def finished(history: tuple[Epoch, ...]) -> None:
            write_atomic(out / RECORD, write_record(_up_to_date(ready.record, history)))
            if board is not None:
                board.write(history[-1])
            if on_epoch is not None:
                on_epoch(history[-1])

        if group.leads and not resume:
            write_atomic(out / RECORD, write_record(ready.record))
        training = adapt(fit(ready, group, progress, stack, finished))
        history = training(ready.module, resume=resume)
    best = best_epoch(history)
    assert best is not None
    record = _up_to_date(ready.record, history)
    if group.leads:  # a kill may have come between the last checkpoint and its record
        write_atomic(out / RECORD, write_record(record))
    return TrainResult(history=history, best=best, record=record, leads=group.leads)


def prepare(
    options: TrainOptions, group: Group, progress: Progress, opened: OpenedData | None = None
) -> Prepared:
    """Open the data and build the model.

    Args:
        options: What to train.
        group: The processes that share each batch.
        progress: Shows what was noted.
        opened: What was opened for an earlier training with the same ``options.data``.

    Raises:
        EdgeclsError: Something cannot be used.
    """
    settings = options.settings
    if settings.batch % group.world:
        raise UsageError(
            f"a batch of {settings.batch} images cannot be shared evenly by {group.world} processes"
        )
    given = resolve_preprocess(options.preprocess) if options.preprocess else None
    opened = opened or open_data(options.data, settings.seed, progress)
    classes = opened.train.classes
    folder = Path(options.model)
    before = read_record(folder) if is_trained(folder) else None
    if before is not None and before.labels != classes:
        raise UsageError(
            f"{options.model} knows other classes than {opened.train.name}; to give it a new head, "
            f"name its architecture ({before.architecture}) and --weights {folder / WEIGHTS}"
        )
    loaded = load_model(
        options.model, weights=options.weights, num_classes=len(classes),
        new_head=options.weights is not None, seed=settings.seed,
    )  # fmt: skip
    for note in loaded.notes:
        progress.note(note)
    if loaded.module is None or options.model.endswith(".pt2"):
        raise UsageError(
            f"{options.model} is a finished graph, which cannot be trained; name its architecture "
            "and give --weights FILE"
        )
    preprocess, size = resolve_input(loaded, given)
    if options.freeze is not None:
        frozen = freeze(loaded.module, options.freeze, len(classes))
        progress.note(f"{len(frozen)} parameters do not learn: {frozen[0]}, ..., {frozen[-1]}")
    bound = bind(opened, options.data, preprocess, size, settings)
    architecture = options.model if before is None else before.architecture
    return Prepared(
        options=options,
        loaded=loaded,
        module=loaded.module,
        data=bound,
        record=record_of(options, loaded, bound, architecture, group),
    )


def record_of(
    options: TrainOptions, loaded: LoadedModel, data: TrainingData, architecture: str, group: Group
) -> TrainingRecord:
    """Return what ``train.json`` says before the first epoch."""
    return TrainingRecord(
        architecture=architecture,
        labels=data.train.classes,
        preprocess=data.preprocess,
        parameters=loaded.parameters or 0,
        config={
            **msgspec.to_builtins(options.settings),
            "learning_rate": options.settings.peak,
            "augment": msgspec.to_builtins(data.augment),
            "freeze": options.freeze,
        },
        initial_weights_sha256=loaded.weights_sha256,
        train=describe_data(data.train),
        val=None if data.val is None else describe_data(data.val),
        processes=group.world,
        tools=_tools(),
        pruned=loaded.pruned,
    )


def fit(
    ready: Prepared, group: Group, progress: Progress, stack: contextlib.ExitStack,
    on_epoch: Callable[[tuple[Epoch, ...]], None], *, keep: bool = True,
) -> Fit:  # fmt: skip
    """Return the training of what is ready.

    Args:
        ready: The model and its data.
        group: The processes that share each batch.
        progress: Shows the steps.
        stack: Ends the threads that decode.
        on_epoch: Called after each epoch, by the first process.
        keep: Whether files are written.
    """
    data, pruned = ready.data, ready.record.pruned
    pool = ThreadPoolExecutor(data.workers, thread_name_prefix="edgecls-load")
    stack.callback(pool.shutdown, wait=True, cancel_futures=True)
    shown = progress if group.leads else Quiet()
    return Fit(
        settings=ready.options.settings,
        train=lambda epoch: data.to_learn(epoch, pool, group, shown),
        steps_per_epoch=data.steps_per_epoch,
        val=None if data.val is None else lambda: data.to_judge(pool, group, shown),
        out=ready.options.out if keep else None,
        identity=ready.identity,
        group=group,
        on_epoch=on_epoch,
        progress=shown,
        after_step=keep_zeros(ready.module) if pruned is not None and pruned.zeros else None,
    )


def _up_to_date(record: TrainingRecord, history: tuple[Epoch, ...]) -> TrainingRecord:
    best = best_epoch(history)
    assert best is not None
    return msgspec.structs.replace(
        record, epochs=len(history), best_epoch=best.epoch, best_top1=best.val_top1
    )


def check_training_out(options: TrainOptions) -> bool:
    """Return whether the folder to write holds something to go on from.

    Raises:
        UsageError: The folder holds something that would be lost.
    """
    out = options.out
    found = (out / LAST).exists()
    if found and not options.resume:
        raise UsageError(f"{out} holds a training; --resume goes on with it, or give another -o")
    if (out / "manifest.json").exists():
        raise UsageError(f"{out} holds a bundle; give another -o")
    if (out / WEIGHTS).exists() and not found:
        # A kill or a full disk in the first epoch may leave weights that no checkpoint counts.
        begun = is_trained(out) and read_record(out).epochs == 0
        if not (begun and options.resume):
            other = "--resume begins again, or give" if begun else "give"
            raise UsageError(f"{out} holds {WEIGHTS}, which would be lost; {other} another -o")
    check_writable(out)
    return found


def check_writable(out: Path) -> None:
    """Refuse a folder that cannot be made or written, before hours are spent; make nothing.

    Raises:
        UsageError: It cannot.
    """
    place = out
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise UsageError(f"-o {out}: {place} is no folder that can be written to")


def _done_steps(out: Path) -> int:
    """Return the steps of the epochs that ``metrics.csv`` lists."""
    try:
        last = (out / "metrics.csv").read_text(encoding="utf-8").splitlines()[-1]
        return int(last.split(",")[1])
    except (OSError, ValueError, IndexError):
        return 0


def _tools() -> dict[str, str]:
    found = {"edgecls": VERSION}
    for name in TOOLS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


@contextlib.contextmanager
def memory_errors(settings: Settings) -> Iterator[None]:
    """Say what to do where a GPU's memory is full.

    Raises:
        MissingError: It is.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MissingError(
            f"not enough memory on the GPU for batches of {settings.batch}; lower --batch"
        ) from error
