"""Weights that are zero: anywhere, or two of every four; the tensors keep their sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import nn

from .importance import Scores, weights_of

Masks: TypeAlias = "dict[str, torch.Tensor]"
"""By weight: True where it stays."""


def lowest_overall(scores: Scores, count: int) -> Masks:
    """Return masks without the ``count`` weights of all layers that are worth least."""
    flat = torch.cat([score.flatten() for score in scores.values()])
    keep = torch.ones(len(flat), dtype=torch.bool)
    # Stable: of equal ones the first go, everywhere alike.
    keep[torch.argsort(flat, stable=True)[:count]] = False
    parts = torch.split(keep, [score.numel() for score in scores.values()])
    return {
        name: part.view(score.shape)
        for (name, score), part in zip(scores.items(), parts, strict=True)
    }


def lowest_by_layer(scores: Scores, count: int) -> Masks:
    """Return masks that take the same share from every layer, ``count`` weights in all."""
    total = sum(score.numel() for score in scores.values())
    masks: Masks = {}
    seen = gone = 0
    for name, score in scores.items():
        seen += score.numel()
        here = count * seen // total - gone  # what rounding leaves over goes to the next layer
        gone += here
        masks |= lowest_overall({name: score}, here)
    return masks


def two_of_four(scores: Scores) -> Masks:
    """Return masks that keep the two best of every four neighbours along the input axis.

    Layers whose number of inputs is not a multiple of four are left out: no sparse kernel of
    NVIDIA takes them.

    Source: Mishra et al. 2021, arXiv:2104.08378.
    """
    masks: Masks = {}
    for name, score in scores.items():
        outputs, inputs = score.shape[:2]
        if inputs % 4:
            continue
        # (outputs, kernel, inputs / 4, 4): neighbours are inputs of one place of the kernel.
        fours = (
            score.reshape(outputs, inputs, -1).transpose(1, 2).reshape(outputs, -1, inputs // 4, 4)
        )
        keep = torch.zeros_like(fours, dtype=torch.bool)
        order = torch.argsort(fours, dim=-1, descending=True, stable=True)
        keep.scatter_(-1, order[..., :2], value=True)
        masks[name] = keep.reshape(outputs, -1, inputs).transpose(1, 2).reshape(score.shape)
    return masks


@torch.no_grad()
def apply_masks(module: nn.Module, masks: Mapping[str, torch.Tensor]) -> None:
    """Set to zero what the masks leave out."""
    for name, mask in masks.items():
        module.get_parameter(name).mul_(mask)


def keep_zeros(module: nn.Module) -> Callable[[nn.Module, int], None]:
    """Return what sets to zero again, after a step, the weights that are zero now."""
    masks = {name: value.detach().ne(0) for name, value in weights_of(module).items()}

    @torch.no_grad()
    def again(learned: nn.Module, epoch: int) -> None:
        del epoch
        for name, mask in masks.items():
            value = learned.get_parameter(name)
            if mask.device != value.device:
                masks[name] = mask = mask.to(value.device)
            value.mul_(mask)

    return again


def nonzero(module: nn.Module) -> int:
    """Return how many parameters are not zero, those outside convolutions and products counted."""
    weights = weights_of(module)
    every = sum(value.numel() for value in module.parameters())
    return every - sum(int(value.eq(0).sum()) for value in weights.values())
