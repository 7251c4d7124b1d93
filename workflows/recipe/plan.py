"""What a recipe would do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from .keys import Keys
from .options import BUNDLES, DRIFT, EXPORT, RecipeOptions
from .state import Made, read_state

Status = Literal["done", "goes on", "to do", "again: its inputs or options changed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A stage that a recipe would run.

    Attributes:
        stage: Its name.
        given: What is asked of it.
        begins_with: What it takes.
        makes: The folder that it writes.
        status: Whether it is done already.
    """

    stage: str
    given: Mapping[str, Any]
    begins_with: str
    makes: str
    status: Status


def plan(options: RecipeOptions) -> tuple[Planned, ...]:
    """Return what a recipe would do; nothing is written.

    Raises:
        EdgeclsError: What the recipe itself would raise before its first stage.
    """
    options.check()
    again: Status = "again: its inputs or options changed"
    state, keys = read_state(options.out), Keys()
    found: list[Planned] = []
    known, source = True, options.model

    def add(
        stage: str, given: Mapping[str, Any], made: Made | None, asked: object, out: Path
    ) -> None:
        nonlocal known, source
        status: Status = "to do"
        if made is not None:
            # What a stage starts from is not there before the one before it is done.
            fits = known and made.key == keys(asked)
            done = made.output is not None and out.exists()
            status = ("done" if done else "goes on") if fits else again
        known = known and status == "done"
        found.append(
            Planned(stage=stage, given=given, begins_with=source, makes=str(out), status=status)
        )
        source = str(out)

    for stage in options.stages:
        add(stage.name, stage.given, state.made.get(stage.name), stage.options, stage.out)
    if options.exports:
        out = options.out / BUNDLES
        add(EXPORT, options.exported, state.made.get(BUNDLES), options.shipped, out)
    if options.gate is not None:
        given = {"reference": options.model, **msgspec.to_builtins(options.gate.budgets)}
        add(DRIFT, given, None, None, options.out / DRIFT)
    return tuple(found)
