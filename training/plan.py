"""What a training will do and take, before it does."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch

from ..core.errors import ModelError
from ..models.cost import activation_bytes, model_cost
from .settings import Settings

_FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a training will do and take.

    Attributes:
        settings: The hyperparameters.
        parameters: Of the model.
        learning: How many of them learn.
        macs: Multiply-accumulates of one image; None where the model cannot be traced.
        images: To learn from.
        judged: To judge by.
        steps_per_epoch: Batches that are full; the rest of an epoch is left out.
        warmup_steps: In which the learning rate rises.
        memory_bytes: Of one process: weights, gradients, the optimizer's state, and what a batch
            leaves for the backward pass; without torch itself (0.3 GB or so) and decoded images.
            None where the model cannot be traced.
        processes: How many train together.
        device: What they compute on.
    """

    settings: Settings
    parameters: int
    learning: int
    macs: int | None
    images: int
    judged: int
    steps_per_epoch: int
    warmup_steps: int
    memory_bytes: int | None
    processes: int
    device: str


def memory_and_macs(
    module: torch.nn.Module, size: tuple[int, int, int], settings: Settings, processes: int
) -> tuple[int | None, int | None]:
    """Return the bytes that one process takes and one image's multiply-accumulates.

    Args:
        module: On the CPU; a copy without memory is traced.
        size: (C, H, W) of its input.
        settings: Batch, optimizer and average count.
        processes: That share a batch.
    """
    try:
        kept = activation_bytes(_shadow(module), size)
        macs = model_cost(_shadow(module), size).macs
    except (ModelError, NotImplementedError):
        return None, None
    counts = [(value.numel(), value.requires_grad) for value in module.parameters()]
    every = sum(count for count, _ in counts)
    learning = sum(count for count, learns in counts if learns)
    states = 1 if settings.optimizer == "sgd" else 2
    numbers = every + learning * (1 + states) + (every if settings.ema is not None else 0)
    return numbers * _FLOAT_BYTES + kept * (settings.batch // processes), macs


def _shadow(module: torch.nn.Module) -> torch.nn.Module:
    with torch.device("meta"):
        return copy.deepcopy(module).to("meta")
