"""What a recipe keeps while it runs, so that what is done is not done again."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from ...bundle.recipe import RecipeStep, Timing
from ...core.errors import CheckpointError
from ...core.files import write_atomic
from ...drift.gate import Outcome

STATE: Final = "state.json"
_VERSION: Final = 1


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A folder that a stage writes.

    Attributes:
        key: What it depends on.
        output: The hash of what it became; None while it is being made.
    """

    key: str
    output: str | None = None


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the table with what it depends on."""

    key: str
    row: RecipeStep


class Timed(msgspec.Struct, frozen=True, kw_only=True):
    """The times of all files, which are taken together, with what they depend on."""

    key: str
    timings: tuple[Timing | None, ...]


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """The gate's verdict on a bundle.

    Attributes:
        key: What it depends on.
        outcome: The verdict.
        exit_code: 0 passed, 1 failed, 5 undecided; 4 where it passed without some of the images.
        images_needed: How many would decide, where that is known.
    """

    key: str
    outcome: Outcome
    exit_code: int
    images_needed: int | None


class State(msgspec.Struct, kw_only=True):
    """Where a recipe stands; written after every change.

    Attributes:
        made: By folder, relative to OUT.
        measured: By row, without its time.
        timed: The times.
        judged: By target.
        version: Of this file.
    """

    made: dict[str, Made] = {}
    measured: dict[str, Measured] = {}
    timed: Timed | None = None
    judged: dict[str, Judged] = {}
    version: int = _VERSION

    def write(self, out: Path) -> None:
        """Keep it, whole or not at all."""
        write_atomic(out / STATE, msgspec.json.format(msgspec.json.encode(self), indent=1))


def read_state(out: Path) -> State:
    """Return where a recipe stands in its folder, which may be new.

    Raises:
        CheckpointError: What was kept is damaged, or of another version.
    """
    file = out / STATE
    if not file.exists():
        return State()
    try:
        state = msgspec.json.decode(file.read_bytes(), type=State)
    except (OSError, msgspec.DecodeError, ValueError) as error:
        raise CheckpointError(
            f"{file}: not a readable state of a recipe ({error}); remove {out} to begin again"
        ) from error
    if state.version != _VERSION:
        raise CheckpointError(
            f"{file}: expected version {_VERSION}, found {state.version}; remove {out} to begin "
            "again"
        )
    return state
