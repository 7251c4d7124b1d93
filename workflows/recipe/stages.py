"""The stages that take a model and leave a model: one entry each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from ...core.errors import CheckFailedError
from ...core.progress import Progress
from ...training import Epoch
from ..distill import DistillOptions, check_distill, distill
from ..prune import prune
from ..prune_setup import PruneOptions, check_prune, failing_folder, work_folder
from ..qat import qat
from ..qat_setup import QatOptions, check_qat

StageOptions: TypeAlias = "PruneOptions | DistillOptions | QatOptions"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStage:
    """A stage that is to be run.

    Attributes:
        name: Its entry in ``KINDS``, and its folder's name.
        options: As its command has them; ``train`` says what it starts from and where it writes.
        given: What was asked for, as provenance shows it: plain values, no paths.
    """

    name: str
    options: StageOptions
    given: Mapping[str, Any]

    @property
    def out(self) -> Path:
        """The folder that it writes."""
        return self.options.train.out

    @property
    def outputs(self) -> tuple[Path, ...]:
        """All that it may leave."""
        return (self.out, work_folder(self.out), failing_folder(self.out))


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What a stage does.

    Attributes:
        check: Refuses options that contradict each other, before anything is begun.
        run: Writes the folder, from where an interrupted run stopped.
        quantized: Whether what it leaves is measured in the precision that ships; else in float32.
    """

    check: Callable[[Any], object]
    run: Callable[[Any, Progress], None]
    quantized: bool = False


def _prune(options: PruneOptions, progress: Progress) -> None:
    result = prune(options, progress)
    if result.missed is not None:
        raise CheckFailedError(
            f"[prune] until = {options.until!r} is not reached: found {result.missed}; the best is "
            f"kept as {result.out}; change [prune]"
        )


def _distill(options: DistillOptions, progress: Progress) -> None:
    distill(options, progress, lambda who, epoch: progress.step(_shown(who, epoch)))


def _qat(options: QatOptions, progress: Progress) -> None:
    qat(options, progress, lambda epoch: progress.step(_shown("qat", epoch)))


def _shown(who: str, epoch: Epoch) -> str:
    judged = "" if epoch.val_top1 is None else f", top-1 {epoch.val_top1:.2f} %"
    return f"{who}: epoch {epoch.epoch}, loss {epoch.train_loss:.4f}{judged}"


KINDS: Final[Mapping[str, Kind]] = {
    "prune": Kind(check=check_prune, run=_prune),
    "distill": Kind(check=check_distill, run=_distill),
    "qat": Kind(check=check_qat, run=_qat, quantized=True),
}
"""In the order in which they run."""
