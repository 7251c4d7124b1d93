"""A trained classifier made smaller or faster, step by step, and trained again."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import safetensors.torch
import torch
from torch import nn

from ..compress.groups import find_groups
from ..compress.method import CHANNELS, Method
from ..compress.sparsity import nonzero
from ..core.errors import ModelError
from ..core.files import atomic_directory, remove_directory, sha256_file, write_atomic
from ..core.progress import Progress, Quiet
from ..drift.proportion import wilson
from ..models import load_model
from ..models.head import freeze
from ..models.load import build
from ..models.trained import (
    RECORD,
    WEIGHTS,
    PruningRecord,
    TrainingRecord,
    read_record,
    write_record,
)
from ..models.widths import widths_of
from ..targets import get_target
from ..training import Epoch, evaluate, save_weights
from ..training.checkpoint import check_identity
from ..training.history import best_epoch
from ..training.loop import LAST
from .prune_artefact import Shipped, Shipping, shipping
from .prune_files import (
    METRICS,
    PLOT,
    STATE,
    STEPS,
    State,
    StepRow,
    check_plot,
    joined_metrics,
    plot,
    read_state,
    steps_csv,
    write_state,
)
from .prune_plan import Chosen, Decided, Planner, cost_of
from .prune_setup import PruneOptions, Ready, check_out, failing_folder, opened, work_folder
from .speed import PAIRS, time_ratio
from .train import fit


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunePlan:
    """What a pruning would do.

    Attributes:
        parameters: Of the whole model.
        macs: Likewise.
        decided: How much goes; None where that is measured first.
        steps: How often is pruned.
        epochs: Of the training after each.
        images: To learn from.
        judged: To judge by.
    """

    parameters: int
    macs: int
    decided: Decided | None
    steps: int
    epochs: int
    images: int
    judged: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneResult:
    """What a pruning gave.

    Attributes:
        out: The folder: the one that was asked for, or ``OUT.failing``.
        rows: The model before, and after each step.
        reached: Whether the goal was.
        missed: What was found instead, where it was not.
        record: What ``train.json`` says.
    """

    out: Path
    rows: tuple[StepRow, ...]
    reached: bool
    missed: str | None
    record: TrainingRecord


def plan(options: PruneOptions, progress: Progress) -> PrunePlan:
    """Return what a pruning would do; nothing is written.

    Raises:
        EdgeclsError: What the pruning itself would raise before its first step.
    """
    check_out(options)
    with opened(options, progress) as ready:
        planner = _planner(ready)
        counted = cost_of(ready.module, ready.size)
        data = ready.base.data
        return PrunePlan(
            parameters=counted.parameters,
            macs=counted.macs,
            decided=None if ready.chosen.measured else planner(),
            steps=options.steps,
            epochs=options.epochs,
            images=len(data.train),
            judged=0 if data.val is None else len(data.val),
        )


def prune(
    options: PruneOptions, progress: Progress, on_step: Callable[[StepRow], None] | None = None
) -> PruneResult:
    """Prune and train until the goal is reached, and write OUT: a model as ``train`` writes one.

    OUT gets model.safetensors, train.json, steps.csv, metrics.csv, pruning.png and state.json; a
    goal that was missed leaves them under OUT.failing. While it runs, all is kept under OUT.work,
    from which it goes on after a kill; to go on with what has ended returns what it left.

    Raises:
        EdgeclsError: With the cause's exit code; what was done is kept.
        KeyboardInterrupt: It was asked to stop; what was done is saved.
    """
    check_plot()
    check_out(options)
    with opened(options, progress) as ready, contextlib.ExitStack() as stack:
        ended = _ended(ready)
        if ended is not None:
            return ended
        run = _Run(ready, on_step)
        chosen = ready.chosen
        must_run = chosen.goal is not None and chosen.goal.quantity == "latency"
        train = options.train
        ship = stack.enter_context(
            shipping(
                ready.base.loaded, get_target(options.target), options.precision,
                ready.base.data.preprocess, ready.base.data.size, ready.base.data.train,
                seed=train.settings.seed, must_run=must_run, progress=progress,
            )
        )  # fmt: skip
        return run(ship)


def _planner(ready: Ready) -> Planner:
    channels = ready.options.method in CHANNELS
    return Planner(
        module=ready.module,
        size=ready.size,
        chosen=ready.chosen,
        batches=ready.batches,
        found=find_groups(ready.module, ready.size) if channels else None,
        progress=ready.progress,
    )


class _Run:
    """The moving parts of one pruning."""

    ship: Shipping
    original: Shipped

    def __init__(self, ready: Ready, on_step: Callable[[StepRow], None] | None) -> None:
        """Read what was kept; refuse what can be refused before anything is exported."""
        self.ready = ready
        self.on_step = on_step
        self.work = work_folder(ready.options.train.out)
        self.state = State(identity=ready.identity)
        if (self.work / STATE).exists():
            self.state = read_state(self.work / STATE)
            mine = msgspec.json.decode(msgspec.json.encode(ready.identity))
            check_identity(self.work / STATE, mine, self.state.identity)
        record = ready.base.record
        with torch.random.fork_rng(devices=[]):
            self.architecture = build(record.architecture, len(record.labels)).module
        self.planner = _planner(ready)
        if self.state.decided is None and not ready.chosen.measured:
            self._decide(self.planner())

    def __call__(self, ship: Shipping) -> PruneResult:
        ready, steps = self.ready, self.ready.options.steps
        ready.progress.step("export the model as it is")
        self.ship, self.original = ship, ship(ready.module.eval())
        planner = replace(self.planner, shipping=ship, original=self.original)
        self._keep(self.state)
        if not self.state.rows:
            self._add(self._row(0, ready.module))
        if self.state.decided is None:
            self._decide(planner())
            self._keep(self.state)
        decided = self.state.decided
        assert decided is not None
        if not decided.reachable:
            ready.progress.note(
                f"--until {ready.options.until} cannot be reached: the most that can go goes"
            )
        method = planner.method(decided, ready.options.epochs)
        module = ready.module
        record = ready.base.record
        for step in range(1, steps + 1):
            ready.progress.step(f"prune, step {step} of {steps}")
            module, record = self._step(step, module, method)
            if len(self.state.rows) <= step:
                self._add(self._row(step, module))
        return self._finish(record)

    def _decide(self, decided: Decided) -> None:
        self.state = msgspec.structs.replace(self.state, decided=decided)

    def _keep(self, state: State) -> None:
        self.state = state
        write_state(state, self.work / STATE)

    def _add(self, row: StepRow) -> None:
        self._keep(msgspec.structs.replace(self.state, rows=(*self.state.rows, row)))
        if self.on_step is not None:
            self.on_step(row)

    def _step(
        self, step: int, module: nn.Module, method: Method
    ) -> tuple[nn.Module, TrainingRecord]:
        """Return the module after a step, from its folder where it is done already."""
        options = self.ready.options
        folder = self.work / f"step-{step}"
        start, done = folder / "start", folder / "done"
        if not done.exists():
            if not start.exists():
                method.cut(module, step / options.steps, self.ready.batches)
                self._write(start, module, self.ready.base.record)
            module, record = self._read(start)
            if options.epochs:
                record = self._learn(folder, module, method, record)
            method.finish(module)
            self._write(done, module, record)
        return self._read(done)

    def _learn(
        self, folder: Path, module: nn.Module, method: Method, record: TrainingRecord
    ) -> TrainingRecord:
        """Train a module in place, to its best epoch."""
        ready = self.ready
        train = replace(ready.options.train, out=folder)
        if train.freeze is not None:
            freeze(module, train.freeze, len(record.labels))
        sha256 = sha256_file(folder / "start" / WEIGHTS)
        base = replace(
            ready.base,
            options=train,
            module=module,
            record=msgspec.structs.replace(record, initial_weights_sha256=sha256),
        )
        hooks = method.hooks(module)
        with contextlib.ExitStack() as stack:
            training = fit(base, ready.group, ready.progress, stack, _nothing)
            training = replace(
                training,
                after_step=hooks.after_step or training.after_step,
                after_epoch=hooks.after_epoch,
            )
            history = training(module, resume=(folder / LAST).exists())
        module.cpu().eval()
        best = safetensors.torch.load((folder / WEIGHTS).read_bytes())
        module.load_state_dict(best, strict=True)
        epoch = best_epoch(history)
        assert epoch is not None
        return msgspec.structs.replace(
            record, epochs=len(history), best_epoch=epoch.epoch, best_top1=epoch.val_top1
        )

    def _write(self, folder: Path, module: nn.Module, record: TrainingRecord) -> None:
        """Write a module as a folder that ``load_model`` takes, and see that it does."""
        options, before = self.ready.options, self.ready.base.record.pruned
        record = msgspec.structs.replace(
            record,
            parameters=sum(value.numel() for value in module.parameters()),
            pruned=PruningRecord(
                method=options.method,
                importance=options.importance,
                goal=options.until or options.method,
                steps=options.steps,
                widths=widths_of(module, self.architecture),
                zeros=options.method not in CHANNELS or (before is not None and before.zeros),
            ),
        )
        expected = self.ship.logits(module)
        with atomic_directory(folder) as temporary:
            write_atomic(temporary / RECORD, write_record(record))
            save_weights(module, temporary / WEIGHTS)
            found = self.ship.logits(self._read(temporary)[0])
            if not np.array_equal(expected, found):
                raise ModelError(
                    f"{record.architecture}, built again at the pruned widths, answers otherwise: "
                    "it keeps sizes outside of its layers' weights; prune its weights instead: "
                    "--method global or layer"
                )

    def _read(self, folder: Path) -> tuple[nn.Module, TrainingRecord]:
        record = self.ready.base.record
        loaded = load_model(
            record.architecture, weights=folder / WEIGHTS, num_classes=len(record.labels)
        )
        assert loaded.module is not None
        found = msgspec.json.decode((folder / RECORD).read_bytes(), type=TrainingRecord)
        return loaded.module, found

    def _row(self, step: int, module: nn.Module) -> StepRow:
        """Judge, export and time a module."""
        ready = self.ready
        counted = cost_of(module, ready.size)
        shipped = self.original if step == 0 else self.ship(module)
        row = StepRow(
            step=step,
            parameters=counted.parameters,
            nonzero=nonzero(module),
            macs=counted.macs,
            size_bytes=shipped.size_bytes,
            **self._judge(module),
        )
        if step == 0:
            return row
        row = msgspec.structs.replace(
            row, predicted_speedup=self.state.rows[0].macs / max(1, row.macs)
        )
        if shipped.backend is None or self.original.backend is None:
            return row
        pixels = self.ship.samples.pixels
        ratio = time_ratio(shipped.backend, self.original.backend, pixels)
        goal = ready.chosen.goal
        limit = goal.limit(1.0) if goal is not None and goal.quantity == "latency" else 0.0
        if ratio.value <= limit < ratio.high:  # look longer before it counts as missed
            ratio = time_ratio(shipped.backend, self.original.backend, pixels, 4 * PAIRS)
        return msgspec.structs.replace(
            row, speedup=1 / ratio.value, speedup_low=1 / ratio.high, speedup_high=1 / ratio.low,
            latency_ms=ratio.ms, original_ms=ratio.other_ms,
        )  # fmt: skip

    def _judge(self, module: nn.Module) -> dict[str, Any]:
        data, group = self.ready.base.data, self.ready.group
        if data.val is None:
            return {}
        with ThreadPoolExecutor(data.workers) as pool:
            _, top1 = evaluate(
                module.to(group.device), data.to_judge(pool, group, Quiet()), group=group
            )
        module.cpu()
        low, high = wilson(round(top1 * len(data.val) / 100), len(data.val))
        return {
            "top1": top1, "top1_low": 100 * low, "top1_high": 100 * high, "images": len(data.val),
        }  # fmt: skip

    def _finish(self, record: TrainingRecord) -> PruneResult:
        """Put the result under its name, and take the work away."""
        rows, out = self.state.rows, self.ready.options.train.out
        missed = _missed(self.ready.chosen, rows)
        if missed is not None:
            out = failing_folder(out)
        folders = [self.work / f"step-{step}" for step in range(1, len(rows))]
        with atomic_directory(out) as temporary:
            for name in (WEIGHTS, RECORD):
                shutil.copyfile(folders[-1] / "done" / name, temporary / name)
            (temporary / STEPS).write_bytes(steps_csv(rows))
            metrics = joined_metrics(folders)
            if metrics:
                (temporary / METRICS).write_bytes(metrics)
            plot(rows, temporary / PLOT)
            write_state(self.state, temporary / STATE)
        remove_directory(self.work)
        return PruneResult(out=out, rows=rows, reached=missed is None, missed=missed, record=record)


def _ended(ready: Ready) -> PruneResult | None:
    """Return what the same pruning left when it ended; None where it did not, or goes on."""
    out = ready.options.train.out
    if not ready.options.train.resume or (work_folder(out) / STATE).exists():
        return None
    mine = msgspec.json.decode(msgspec.json.encode(ready.identity))
    for folder in (out, failing_folder(out)):
        if not (folder / STATE).exists():
            continue
        state = read_state(folder / STATE)
        if folder == out:  # what failed may be replaced
            check_identity(folder / STATE, mine, state.identity)
        if state.identity == mine:
            missed = _missed(ready.chosen, state.rows)
            return PruneResult(
                out=folder, rows=state.rows, reached=missed is None, missed=missed,
                record=read_record(folder),
            )  # fmt: skip
    return None


def _missed(chosen: Chosen, rows: Sequence[StepRow]) -> str | None:
    """Return what was found in place of the goal; None where it is reached."""
    goal = chosen.goal
    if goal is None:
        return None
    first, last = rows[0], rows[-1]
    if goal.quantity == "latency":
        assert last.speedup is not None
        assert last.speedup_low is not None
        if 1 / last.speedup_low <= goal.limit(1.0):
            return None
        return f"{1 / last.speedup:.2f}x, at most {1 / last.speedup_low:.2f}x with 95 % confidence"
    counts = "parameters" if chosen.method in CHANNELS else "nonzero"
    name = {"params": counts, "macs": "macs", "size": "size_bytes"}[goal.quantity]
    found, limit = getattr(last, name), goal.limit(getattr(first, name))
    return None if found <= limit else f"{found:,} with a limit of {limit:,.0f}"


def _nothing(history: tuple[Epoch, ...]) -> None:
    """Hear of an epoch."""
