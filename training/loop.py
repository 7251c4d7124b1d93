"""The training loop: the same seed gives the same weights, however often it was interrupted."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from ..core.errors import DataError, ModelError, TrainingError
from ..core.files import write_atomic
from ..core.progress import Progress, Quiet
from ..core.values import Tensor
from ..models.head import train_mode
from .average import WeightAverage
from .checkpoint import State, check_finite, read_state, save_state, save_weights
from .distributed import Group
from .evaluation import evaluate
from .history import Epoch, best_epoch, out_of_patience, to_csv
from .interrupts import Interrupt, deferred_interrupts
from .optimizer import make_optimizer
from .schedule import make_schedule
from .settings import Settings

OnePass: TypeAlias = "Iterable[tuple[Tensor, NDArray[Any]]]"
"""Images (N, C, H, W) float32 with classes (N,) or their probabilities (N, classes)."""

Batches: TypeAlias = "Callable[[int], OnePass | Iterable[tuple[NDArray[Any], ...]]]"
"""From an epoch (0, 1, ...) to its batches: the same epoch must give the same ones.

What a batch has beside images and classes is handed on to the objective.
"""

LAST: Final = "last.ckpt"
METRICS: Final = "metrics.csv"
BEST: Final = "model.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Trains a classifier.

    Attributes:
        settings: The hyperparameters.
        train: This process's part of the batches to learn from.
        steps_per_epoch: How many batches an epoch has.
        val: Its part of those to judge by, the same every epoch; None keeps the last epoch.
        out: A folder for the checkpoint, the best weights and the metrics; None writes nothing.
        identity: What a checkpoint must have been made with to go on from it.
        group: The processes that train together.
        on_epoch: Called after each with all that are done, by the first process.
        progress: Shows each epoch's steps.
        objective: From logits (N, classes), classes as ``train`` gives them, and what else a batch
            has, to the loss; None is the cross-entropy with the settings' label smoothing.
        after_step: Called with the module and the epoch, from 0, after each step, such as to keep
            zeros.
        after_epoch: Called with it after each epoch, before it is judged and kept.
    """

    settings: Settings
    train: Batches
    steps_per_epoch: int
    val: Callable[[], OnePass] | None = None
    out: Path | None = None
    identity: dict[str, Any] = field(default_factory=dict)
    group: Group = field(default_factory=Group)
    on_epoch: Callable[[tuple[Epoch, ...]], None] | None = None
    progress: Progress = field(default_factory=Quiet)
    objective: Callable[..., torch.Tensor] | None = None
    after_step: Callable[[torch.nn.Module, int], None] | None = None
    after_epoch: Callable[[torch.nn.Module], None] | None = None

    def __call__(self, module: torch.nn.Module, *, resume: bool = False) -> tuple[Epoch, ...]:
        """Train in place, and leave the module in evaluation mode with its last weights.

        On one machine with the same number of threads and processes the same seed gives the same
        weights, bit for bit on CPUs.

        Args:
            module: Computes logits (N, classes) from (N, C, H, W). With ``settings.ema`` it ends
                with the averaged weights.
            resume: Whether to go on from ``out``'s checkpoint.

        Returns:
            All epochs, also those before an interruption.

        Raises:
            TrainingError: The loss or a weight became NaN or infinite; the message names the step.
                The last good checkpoint is kept.
            CheckpointError: The checkpoint is damaged or of another training.
            ModelError: The module answers with something else than logits.
            KeyboardInterrupt: It was asked to stop, and the running step's state is saved.
        """
        if self.steps_per_epoch < 1:
            raise ValueError("an epoch needs at least one step")
        devices = [self.group.device] if self.group.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.enable_grad():
            run = _Run(self, module.to(self.group.device))
            if resume and self.out is not None:
                run.load(read_state(self.out / LAST, self.identity))
            with deferred_interrupts() as interrupt:
                history = run.all_epochs(interrupt)
        if run.average is not None:
            module.load_state_dict(run.average.module.state_dict())
        module.eval()
        return history


class _Run:
    """The moving parts of one training."""

    def __init__(self, fit: Fit, module: torch.nn.Module) -> None:
        settings = fit.settings
        self.fit = fit
        self.module = module
        self.wrapped = fit.group.wrap(module)
        self.optimizer = make_optimizer(module, settings)
        self.schedule = make_schedule(settings, fit.steps_per_epoch)
        self.average = None if settings.ema is None else WeightAverage(module, settings.ema)
        cuda = fit.group.device.type == "cuda"
        half = torch.bfloat16 if cuda and torch.cuda.is_bf16_supported() else torch.float16
        self.cast = torch.autocast("cuda", half) if cuda and settings.amp else None
        # bfloat16 has float32's range: nothing is scaled.
        scales = self.cast is not None and half == torch.float16
        self.scaler = torch.amp.GradScaler("cuda", enabled=scales)
        self.objective = fit.objective or torch.nn.CrossEntropyLoss(
            label_smoothing=settings.label_smoothing
        )
        self.history: tuple[Epoch, ...] = ()
        self.step = 0
        self.sums = torch.zeros(3, dtype=torch.float64)

    def load(self, state: State) -> None:
        """Go on from a checkpoint."""
        self.module.load_state_dict(state.module)
        if self.average is not None and state.average is not None:
            self.average.module.load_state_dict(state.average)
        self.optimizer.load_state_dict(state.optimizer)
        if state.scaler is not None:
            self.scaler.load_state_dict(state.scaler)
        self.history, self.step, self.sums = state.history, state.step, state.sums

    def all_epochs(self, interrupt: Interrupt) -> tuple[Epoch, ...]:
        """Train until the end, or until no epoch was better for too long."""
        fit, settings = self.fit, self.fit.settings
        if fit.out is not None and fit.group.leads:
            write_atomic(fit.out / METRICS, to_csv(self.history))
        while len(self.history) < settings.epochs:
            if self.history and out_of_patience(self.history, settings.patience):
                break
            row = self._epoch(len(self.history), interrupt)
            self.history = (*self.history, row)
            self.step, self.sums = 0, torch.zeros(3, dtype=torch.float64)
            self._write(row)
            if fit.group.leads and fit.on_epoch is not None:
                fit.on_epoch(self.history)
        return self.history

    def _epoch(self, epoch: int, interrupt: Interrupt) -> Epoch:
        fit, settings = self.fit, self.fit.settings
        train_mode(self.wrapped)
        # An interrupted epoch is gone through again up to where it stood, which only decodes.
        batches = itertools.islice(fit.train(epoch), self.step, fit.steps_per_epoch)
        for batch in fit.progress.track(
            batches, f"epoch {epoch + 1}/{settings.epochs}", fit.steps_per_epoch - self.step
        ):
            found = self._learn(epoch, *batch, stop=interrupt.requested)
            self.step += 1
            self.sums += found[:3]
            if found[3] > 0:
                self._interrupted(epoch)
        if self.step != fit.steps_per_epoch:
            raise DataError(
                f"epoch {epoch + 1}: expected {fit.steps_per_epoch} batches, found {self.step}: no "
                "image of the others can be read"
            )
        if fit.after_epoch is not None:
            fit.after_epoch(self.module)
        self.module.eval()
        val_loss, val_top1 = self._judge()
        loss, right, images = self.sums.tolist()
        return Epoch(
            epoch=epoch + 1,
            steps=(epoch + 1) * fit.steps_per_epoch,
            learning_rate=self._rate(epoch, fit.steps_per_epoch - 1),
            train_loss=loss / images,
            train_top1=100 * right / images,
            val_loss=val_loss,
            val_top1=val_top1,
        )

    def _learn(
        self, epoch: int, images: Tensor, labels: NDArray[Any], *more: NDArray[Any], stop: bool
    ) -> torch.Tensor:
        """Take one step; return loss times images, right answers, images, requests to stop."""
        fit, settings = self.fit, self.fit.settings
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(epoch, self.step)
        # Dropout depends on the step alone, not on what was drawn before.
        _seed(settings.seed, epoch, self.step, fit.group.rank)
        device = fit.group.device
        target = torch.as_tensor(labels).to(device)
        with self.cast or contextlib.nullcontext():
            logits = self.wrapped(torch.as_tensor(images).to(device))
            if not isinstance(logits, torch.Tensor):
                raise ModelError(
                    f"in training the model answers with a {type(logits).__name__}, expected a "
                    "tensor of logits; build it without auxiliary heads"
                )
            loss = self.objective(
                logits, target, *(torch.as_tensor(part).to(device) for part in more)
            )
        classes = target if target.ndim == 1 else target.argmax(1)
        value, count = float(loss.detach()), len(classes)
        right = int((logits.detach().argmax(1) == classes).sum())
        found = torch.tensor([value * count, right, count, stop], dtype=torch.float64)
        found = fit.group.total(found.to(device)).cpu()
        if not math.isfinite(float(found[0])):
            raise TrainingError(
                f"training diverged: the loss is {float(found[0]) / float(found[2])} at step "
                f"{self.step + 1} of epoch {epoch + 1}; lower the learning rate "
                f"({settings.peak:g}){self._kept()}"
            )
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        if settings.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.module.parameters(), settings.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if fit.after_step is not None:
            fit.after_step(self.module, epoch)
        if self.average is not None:
            self.average.update(self.module, epoch * fit.steps_per_epoch + self.step)
        return found

    def _judge(self) -> tuple[float | None, float | None]:
        """Return loss and top-1 on the images to judge by."""
        fit = self.fit
        if fit.val is None:
            return None, None
        fit.group.same_buffers(self.judged)
        loss, top1 = evaluate(self.judged, fit.val(), group=fit.group, cast=self.cast)
        if not math.isfinite(loss):
            raise TrainingError(
                f"training diverged: the loss on the images to judge by is {loss} after epoch "
                f"{len(self.history) + 1}; lower the learning rate{self._kept()}"
            )
        return loss, top1

    @property
    def judged(self) -> torch.nn.Module:
        """What answers, and is kept."""
        return self.module if self.average is None else self.average.module

    def _rate(self, epoch: int, step: int) -> float:
        return self.fit.settings.peak * self.schedule(epoch * self.fit.steps_per_epoch + step)

    def _write(self, row: Epoch) -> None:
        """Write what an epoch gave, the best weights before the checkpoint that counts them.

        A kill in between leaves an older checkpoint, from which the same weights follow again.
        """
        fit = self.fit
        if fit.out is not None and fit.group.leads:
            check_finite(self.judged.state_dict())
            if best_epoch(self.history) == row:
                save_weights(self.judged, fit.out / BEST)
            save_state(self._state(), fit.out / LAST)
            write_atomic(fit.out / METRICS, to_csv(self.history))
        fit.group.wait()

    def _interrupted(self, epoch: int) -> None:
        fit = self.fit
        if fit.out is not None and fit.group.leads:
            save_state(self._state(), fit.out / LAST)
            fit.progress.note(
                f"stopped after step {self.step} of epoch {epoch + 1}: saved; the same command "
                "with --resume goes on"
            )
        fit.group.wait()
        raise KeyboardInterrupt

    def _state(self) -> State:
        return State(
            identity=self.fit.identity,
            module=self.module.state_dict(),
            average=None if self.average is None else self.average.module.state_dict(),
            optimizer=self.optimizer.state_dict(),
            scaler=self.scaler.state_dict() if self.scaler.is_enabled() else None,
            epochs=len(self.history),
            step=self.step,
            sums=self.sums,
            history=self.history,
        )

    def _kept(self) -> str:
        if self.fit.out is None or not self.history:
            return ""
        return f"; the checkpoint after epoch {len(self.history)} is kept"


def _seed(*parts: int) -> None:
    torch.manual_seed(int(np.random.SeedSequence(list(parts)).generate_state(1, np.uint32)[0]))
