"""What a pruning works with: options that go together, the model, its data, free folders."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from torch import nn

from ..compress.allotment import Allotment
from ..compress.goal import parse_goal
from ..compress.importance import Batches, Importance
from ..compress.method import MethodName
from ..core.errors import UsageError
from ..core.progress import Progress
from ..core.values import Precision
from ..data.loader import Loader
from ..targets import get_target
from ..training.distributed import Group, process_group
from .export_options import check_precision
from .prune_files import STATE, STEPS
from .prune_plan import Chosen
from .sources import torch_threads
from .train import Prepared, TrainOptions, check_writable, prepare

# Of which gradients and activations are taken.
_BATCHES: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneOptions:
    """What to prune, as the command line has it.

    Attributes:
        train: The model, its data and how it learns after each step; ``out`` is the result's.
        until: The goal; None for 2:4, whose pattern says how much goes.
        method: How.
        importance: What ranks channels or weights.
        steps: How often is pruned and trained again.
        epochs: Of each training; 0 trains nothing.
        round_to: Widths are multiples of it.
        allotment: Whether all groups lose the same share, or are ranked together.
        target: What the model ships to.
        precision: Of its file.
    """

    train: TrainOptions
    until: str | None
    method: MethodName = "structured"
    importance: Importance = "magnitude"
    steps: int = 1
    epochs: int = 1
    round_to: int = 8
    allotment: Allotment = "even"
    target: str = "raspberry-pi"
    precision: Precision = "int8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A model, its data and what was asked for."""

    options: PruneOptions
    chosen: Chosen
    base: Prepared
    group: Group
    progress: Progress

    @property
    def module(self) -> nn.Module:
        """The model, on the CPU."""
        return self.base.module

    @property
    def size(self) -> tuple[int, int, int]:
        """(C, H, W) of its input."""
        return (self.base.data.preprocess.channels, *self.base.data.size)

    @property
    def identity(self) -> dict[str, Any]:
        """What must be the same to go on."""
        options = self.options
        return {
            **self.base.identity,
            "goal": options.until, "method": options.method, "importance": options.importance,
            "steps": options.steps, "epochs": options.epochs, "round to": options.round_to,
            "allotment": options.allotment, "target": options.target,
            "precision": options.precision,
        }  # fmt: skip

    def batches(self) -> Batches:
        """Return a few batches to learn from, as they are."""
        data = self.base.data
        loader = Loader(
            data.train, data.preprocess, batch=data.settings.batch, seed=data.settings.seed,
            workers=data.workers, cache=data.opened.cache, size=data.size,
        )  # fmt: skip
        return itertools.islice(loader, _BATCHES)  # type: ignore[arg-type]


def check_prune(options: PruneOptions) -> Chosen:
    """Return what was asked for.

    Raises:
        UsageError: It cannot be had, whatever the model.
    """
    chosen = Chosen(
        method=options.method,
        goal=None if options.until is None else parse_goal(options.until),
        importance=options.importance,
        steps=options.steps,
        round_to=options.round_to,
        allotment=options.allotment,
    )
    chosen.check()
    if options.method == "soft" and (options.epochs < 2 or options.train.settings.ema is not None):
        raise UsageError(
            "--method soft prunes as the weights themselves learn; give --epochs 2 or more, in the "
            "first half of which filters grow again, and leave --ema out"
        )
    check_precision((get_target(options.target),), options.precision)
    return chosen


@contextlib.contextmanager
def opened(options: PruneOptions, progress: Progress) -> Iterator[Ready]:
    """Check the options, and open the model and its data.

    Raises:
        EdgeclsError: Something cannot be used, or not together.
    """
    chosen = check_prune(options)
    with process_group(options.train.device) as group, torch_threads(options.train.threads):
        if group.world > 1:
            raise UsageError("prune runs in one process; leave torchrun out")
        base = prepare(options.train, group, progress)
        if base.loaded.random_weights:
            raise UsageError(
                f"{options.train.model} has random weights: there is nothing to keep of them; give "
                "--weights FILE, or a folder of edgecls train"
            )
        yield Ready(options=options, chosen=chosen, base=base, group=group, progress=progress)


def work_folder(out: Path) -> Path:
    """Return where all is kept while it runs."""
    return out.with_name(f"{out.name}.work")


def failing_folder(out: Path) -> Path:
    """Return where the result goes that missed its goal."""
    return out.with_name(f"{out.name}.failing")


def check_out(options: PruneOptions) -> None:
    """Refuse where something would be lost, or begun twice.

    Raises:
        UsageError: It would.
    """
    out = options.train.out
    work, failing = work_folder(out), failing_folder(out)
    begun = (work / STATE).exists()
    if begun and not options.train.resume:
        raise UsageError(
            f"{work} holds a pruning that has not ended; --resume goes on with it, or remove it"
        )
    if work.exists() and not begun and any(work.iterdir()):
        raise UsageError(f"{work} is no pruning's work and would be lost; give another -o")
    ended = options.train.resume and (out / STATE).exists()
    if out.exists() and not (begun or ended) and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(f"{out} exists and would be lost; give another -o")
    if failing.exists() and not (failing / STEPS).exists():
        raise UsageError(f"{failing} is no pruning's result and would be lost; give another -o")
    check_writable(out)
