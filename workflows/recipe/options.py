"""What a recipe does, and what of it goes together."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from ...core.errors import UsageError
from ...drift.budgets import Budgets
from ..answering import DataOptions
from ..export_options import ExportOptions, check_options
from ..qat_setup import QatOptions
from ..scale import HERE, Scale
from ..sources import ModelOptions
from ..train import check_writable
from .measure import first_that_runs
from .stages import KINDS, ModelStage
from .state import STATE

EXPORT: Final = "export"
DRIFT: Final = "drift"
BUNDLES: Final = "bundles"
_TUNED: Final = "tune.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What the end may cost.

    Attributes:
        budgets: The limits.
        images: How many of those that judge; None is all.
        seed: Chooses them.
        scale: Who does the work.
        timed: On how many images both sides are timed.
    """

    budgets: Budgets
    images: int | None = None
    seed: int = 0
    scale: Scale = HERE
    timed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeOptions:
    """What a recipe does.

    Attributes:
        model: What it begins with, and what the gate compares with.
        source: What that needs.
        targets: Names; the first whose files run here is the one that every stage is timed on.
        data: The images that judge, which nothing may learn from.
        out: The folder of all that is made.
        stages: What makes the model smaller, in the order of ``KINDS``.
        export: What ships; its ``source`` is what the last stage leaves. Without ``exports`` it
            only says how a stage's file is made.
        exports: Whether anything ships.
        exported: What was asked of the export, as provenance shows it.
        gate: What judges the bundles; None judges nothing.
    """

    model: str
    source: ModelOptions
    targets: tuple[str, ...]
    data: DataOptions
    out: Path
    stages: tuple[ModelStage, ...]
    export: ExportOptions
    exports: bool
    exported: Mapping[str, Any]
    gate: Gate | None

    @property
    def timed(self) -> str:
        """The target that every stage's file is made for."""
        return first_that_runs(self.targets)

    @property
    def shipped(self) -> ExportOptions:
        """The export of what ships."""
        tuned = self.out / _TUNED if self.export.tune is not None else None
        return replace(self.export, out=self.out / BUNDLES, tune_resume=tuned)

    def check(self) -> None:
        """Refuse what cannot be done before anything is begun.

        Raises:
            UsageError: Something contradicts itself, or would be lost.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UsageError("a recipe runs in one process; leave torchrun out")
        if not self.stages and not self.exports:
            raise UsageError(
                f"there is nothing to do: give tables of {', '.join(KINDS)} or {EXPORT}"
            )
        if self.gate is not None:
            self.gate.budgets.check()
            if not self.exports:
                raise UsageError("[drift] judges what [export] makes: give both tables")
        quantized = any(KINDS[stage.name].quantized for stage in self.stages)
        if self.exports and not quantized:
            check_options(self.export)
        for stage in self.stages:
            KINDS[stage.name].check(stage.options)
        self._check_judge()
        if not (self.out / STATE).exists() and self.out.exists() and any(self.out.iterdir()):
            raise UsageError(f"{self.out} exists and is no recipe's; give another -o")
        check_writable(self.out)

    def _check_judge(self) -> None:
        """Refuse images that would judge what was made with them.

        Raises:
            UsageError: There are some.
        """
        assert self.data.data is not None
        judge = self.data.data.resolve()
        used: list[tuple[str, str, Path | None]] = []
        for stage in self.stages:
            data = stage.options.train.data
            used += [(stage.name, "data", data.path), (stage.name, "val", data.val)]
            if isinstance(stage.options, QatOptions):
                used.append((stage.name, "calib", stage.options.calib))
        if self.exports:
            used += [(EXPORT, "calib", self.export.calib), (EXPORT, "tune", self.export.tune)]
        for name, key, path in used:
            if path is None:
                continue
            found = path.resolve()
            if judge == found or judge in found.parents or found in judge.parents:
                raise UsageError(
                    f"{self.data.data} would judge what [{name}] made with it: its {key} is "
                    f"{path}; give --judge other images"
                )
