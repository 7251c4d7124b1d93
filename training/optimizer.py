"""The optimizers, with weight decay where it belongs."""

from __future__ import annotations

from typing import Any

import torch

from .settings import Settings


def make_optimizer(module: torch.nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """Return an optimizer over what learns; biases and norms' scales (one axis) are not decayed."""
    learning = [value for value in module.parameters() if value.requires_grad]
    matrices = [value for value in learning if value.ndim > 1]
    vectors = [value for value in learning if value.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(
            groups, lr=settings.peak, momentum=settings.momentum, nesterov=settings.momentum > 0
        )
    kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, lr=settings.peak)
