"""What each epoch gave, and the table of it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Final

import msgspec


class Epoch(msgspec.Struct, frozen=True, kw_only=True):
    """One row of ``metrics.csv``; no times, so that a repeated training gives the same file.

    Attributes:
        epoch: From 1.
        steps: Done in all.
        learning_rate: Of its last step.
        train_loss: Mean over its images, with label smoothing, as the weights changed.
        train_top1: Percent, likewise.
        val_loss: Mean cross-entropy; None without images to judge by.
        val_top1: Percent.
    """

    epoch: int
    steps: int
    learning_rate: float
    train_loss: float
    train_top1: float
    val_loss: float | None = None
    val_top1: float | None = None


_COLUMNS: Final = Epoch.__struct_fields__


def to_csv(history: Sequence[Epoch]) -> bytes:
    """Return the table with a head; numbers in full, empty where there is none."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows([getattr(row, name) for name in _COLUMNS] for row in history)
    return text.getvalue().encode()


def best_epoch(history: Sequence[Epoch]) -> Epoch | None:
    """Return the first epoch with the highest top-1; the last where nothing was judged."""
    judged = [row for row in history if row.val_top1 is not None]
    if not judged:
        return history[-1] if history else None
    return max(judged, key=lambda row: (row.val_top1 or 0.0, -row.epoch))


def out_of_patience(history: Sequence[Epoch], patience: int | None) -> bool:
    """Return whether so many epochs have passed since the best one."""
    best = best_epoch(history)
    return patience is not None and best is not None and history[-1].epoch - best.epoch >= patience
