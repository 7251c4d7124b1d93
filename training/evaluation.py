"""How well a module answers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

import torch
from numpy.typing import NDArray

from ..core.values import Tensor
from .distributed import Group


def evaluate(
    module: torch.nn.Module,
    batches: Iterable[tuple[Tensor, NDArray[Any]]],
    *,
    group: Group,
    cast: torch.autocast | None = None,
) -> tuple[float, float]:
    """Return the mean cross-entropy and the top-1 accuracy in percent, in evaluation mode.

    Args:
        module: On the group's device.
        batches: This process's part: images (N, C, H, W) float32 and classes (N,).
        group: The sums go over all its processes.
        cast: For 16-bit arithmetic.
    """
    module.eval()
    sums = torch.zeros(3, dtype=torch.float64, device=group.device)
    with torch.inference_mode(), cast or contextlib.nullcontext():
        for images, labels in batches:
            target = torch.as_tensor(labels).to(group.device)
            logits = module(torch.as_tensor(images).to(group.device)).float()
            sums[0] += torch.nn.functional.cross_entropy(logits, target, reduction="sum").double()
            sums[1] += (logits.argmax(1) == target).sum()
            sums[2] += len(target)
    loss, right, images_seen = group.total(sums).tolist()
    return loss / images_seen, 100 * right / images_seen
