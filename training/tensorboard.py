"""Writes what TensorBoard shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..core.errors import MissingPackageError
from .history import Epoch


class TensorBoard:
    """Scalars of each epoch, by the number of steps."""

    def __init__(self, folder: Path, done_steps: int) -> None:
        """Begin, or go on after ``done_steps``: what an earlier run wrote beyond them is hidden.

        Raises:
            MissingPackageError: tensorboard is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] != "tensorboard":
                raise
            raise MissingPackageError("tensorboard", "train") from None
        make: Any = SummaryWriter
        self._writer = make(str(folder), purge_step=done_steps + 1 if done_steps else None)

    def write(self, epoch: Epoch) -> None:
        """Add an epoch, and make it visible at once."""
        for name, value in (
            ("loss/train", epoch.train_loss), ("loss/val", epoch.val_loss),
            ("top1/train", epoch.train_top1), ("top1/val", epoch.val_top1),
            ("learning_rate", epoch.learning_rate),
        ):  # fmt: skip
            if value is not None:
                self._writer.add_scalar(name, value, epoch.steps)
        self._writer.flush()

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()
