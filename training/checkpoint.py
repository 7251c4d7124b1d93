"""``last.ckpt``: all that a training needs to go on, in a file that holds nothing but data."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import safetensors.torch
import torch

from ..core.errors import CheckpointError, TrainingError
from ..core.files import write_atomic
from .history import Epoch

FORMAT: Final = "edgecls-training"
VERSION: Final = 1


@dataclass(slots=True, kw_only=True)
class State:
    """Where a training stands.

    Attributes:
        identity: What must be the same for the numbers to be: architecture, data, settings.
        module: The weights that learn; ``state_dict`` in the file, so that other tools find them.
        average: Their moving average; None without one.
        optimizer: Its ``state_dict()``.
        scaler: The gradient scaler's; None without one.
        epochs: How many are done.
        step: Steps done of the running epoch.
        sums: Over these: loss times images, right answers, images; shape (3,), float64.
        history: The epochs that are done.
    """

    identity: dict[str, Any]
    module: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    average: dict[str, torch.Tensor] | None = None
    scaler: dict[str, Any] | None = None
    epochs: int = 0
    step: int = 0
    sums: torch.Tensor = field(default_factory=lambda: torch.zeros(3, dtype=torch.float64))
    history: tuple[Epoch, ...] = ()


def save_state(state: State, path: Path) -> None:
    """Write the checkpoint, whole or not at all.

    Raises:
        TrainingError: A weight is NaN or infinite; the file that is there is kept.
        OSError: The file could not be written.
    """
    check_finite(state.module)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "identity": msgspec.json.encode(state.identity).decode(),
        "history": msgspec.json.encode(state.history).decode(),
        "state_dict": state.module,
        "optimizer": state.optimizer,
        "scaler": state.scaler,
        "epochs": state.epochs,
        "step": state.step,
        "sums": state.sums,
    }
    if state.average is not None:
        content["state_dict_ema"] = state.average
    # In memory first: on a full disk torch.save into a file raises what says nothing of it.
    stream = io.BytesIO()
    torch.save(content, stream)
    write_atomic(path, stream.getvalue())


def read_state(path: Path, identity: dict[str, Any]) -> State:
    """Read a checkpoint without running what is in it.

    Args:
        path: The file.
        identity: Of the training that wants to go on.

    Raises:
        CheckpointError: Not a readable checkpoint of a training, or of another one; the message
            names the first difference.
    """
    try:
        # In memory: torch.load's errors of a damaged file are then of one kind.
        content = torch.load(io.BytesIO(path.read_bytes()), map_location="cpu", weights_only=True)
        if content["format"] != FORMAT or content["version"] != VERSION:
            raise CheckpointError(
                f"{path}: expected {FORMAT} version {VERSION}, found {content['format']} "
                f"version {content['version']}"
            )
        found: dict[str, Any] = msgspec.json.decode(content["identity"])
        check_identity(path, msgspec.to_builtins(identity), found)
        return State(
            identity=identity,
            module=content["state_dict"],
            optimizer=content["optimizer"],
            average=content.get("state_dict_ema"),
            scaler=content["scaler"],
            epochs=content["epochs"],
            step=content["step"],
            sums=content["sums"],
            history=msgspec.json.decode(content["history"], type=tuple[Epoch, ...]),
        )
    except CheckpointError:
        raise
    except Exception as error:  # a damaged file can fail anywhere inside the unpickler
        raise CheckpointError(
            f"{path}: not a readable checkpoint of a training ({type(error).__name__}); give "
            "another -o to begin again"
        ) from error


def check_identity(path: Path, expected: dict[str, Any], found: dict[str, Any]) -> None:
    """Raise CheckpointError where a file was made by another run, with the first difference."""
    for name in sorted(expected.keys() | found.keys()):
        mine, theirs = expected.get(name), found.get(name)
        if isinstance(mine, dict) and isinstance(theirs, dict):
            check_identity(path, mine, theirs)
        elif msgspec.json.encode(mine) != msgspec.json.encode(theirs):
            raise CheckpointError(
                f"{path} is of another training: {name.replace('_', ' ')} is {theirs!r} there, "
                f"{mine!r} here; give what it began with, or another -o"
            )


def check_finite(tensors: dict[str, torch.Tensor]) -> None:
    """Raise TrainingError where a weight or a running statistic is NaN or infinite."""
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise TrainingError(
                f"training diverged: NaN or infinity in {name}; lower the learning rate"
            )


def save_weights(module: torch.nn.Module, path: Path) -> None:
    """Write the module's state dict as safetensors, whole or not at all.

    Raises:
        OSError: The file could not be written.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
    write_atomic(path, safetensors.torch.save(state))
