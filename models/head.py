"""Which layers of a classifier make its logits, and which parameters learn."""

from __future__ import annotations

import fnmatch
from typing import Final

import torch

from ..core.errors import UsageError

BACKBONE: Final = "backbone"
"""All but the head: what ``freeze`` takes as a pattern for learning a new head only."""


def head_layers(module: torch.nn.Module, num_classes: int) -> tuple[str, ...]:
    """Return the last layers with ``num_classes`` outputs, by name; a distilled ViT has two.

    Raises:
        UsageError: The module's last layer has another number of outputs.
    """
    found: list[str] = []
    layers = [(name, part) for name, part in module.named_modules() if _own(part)]
    for name, part in reversed(layers):
        weight = getattr(part, "weight", None)
        if not isinstance(weight, torch.Tensor) or weight.ndim < 2 or len(weight) != num_classes:
            break
        found.append(name)
    if not found:
        last = layers[-1][0] if layers else "none"
        raise UsageError(
            f"the model's last layer with weights ({last}) does not give {num_classes} logits; "
            "name what to freeze by a pattern, such as --freeze 'layer1.*'"
        )
    return tuple(reversed(found))


def freeze(module: torch.nn.Module, pattern: str, num_classes: int) -> tuple[str, ...]:
    """Take parameters out of the training, and return their names.

    Args:
        module: Changed in place: ``requires_grad`` of the parameters.
        pattern: ``backbone``, or a pattern of names with ``*`` and ``?``; a layer's name means all
            in it.
        num_classes: Size of the head.

    Raises:
        UsageError: No parameter matches, or all do: nothing could be learned.
    """
    names = [name for name, _ in module.named_parameters()]
    if pattern == BACKBONE:
        heads = tuple(f"{name}." for name in head_layers(module, num_classes))
        chosen = [name for name in names if not name.startswith(heads)]
    else:
        chosen = [
            name
            for name in names
            if fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, f"{pattern}.*")
        ]
    if not chosen or len(chosen) == len(names):
        found = "none" if not chosen else "all"
        raise UsageError(
            f"--freeze {pattern}: {found} of the model's {len(names)} parameters match; they are "
            f"called {names[0]}, ..., {names[-1]}"
        )
    for name in chosen:
        module.get_parameter(name).requires_grad_(False)
    return tuple(chosen)


def train_mode(module: torch.nn.Module) -> None:
    """Put the module into training mode, but frozen batch norm into evaluation mode.

    Its running statistics would drift with every batch though nothing of it learns, and dropout
    stays as it is: it has no parameters.
    """
    module.train()
    for part in module.modules():
        own = list(part.parameters(recurse=False))
        if own and not any(value.requires_grad for value in own):
            part.eval()


def _own(part: torch.nn.Module) -> bool:
    return next(part.parameters(recurse=False), None) is not None
