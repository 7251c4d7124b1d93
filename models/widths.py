"""Widths of a model that is narrower than its architecture: data, from which it is built again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

import torch
from torch import nn

from ..core.errors import ModelError

Widths: TypeAlias = "dict[str, tuple[int | None, ...]]"
"""By tensor of the state dict: the sizes of its axes, None where they are the architecture's."""

# torch calls it private; BatchNorm1d to 3d and timm's norms with an activation are one.
_BATCH_NORM: Final = nn.modules.batchnorm._BatchNorm
RESIZABLE: Final = (nn.Conv2d, nn.Linear, _BATCH_NORM, nn.PReLU)
"""Layers whose widths can change: their sizes follow from their tensors."""


def widths_of(module: nn.Module, architecture: nn.Module) -> Widths:
    """Return where ``module`` differs from what its architecture builds."""
    built = architecture.state_dict()
    return {
        name: tuple(
            None if ours == theirs else ours
            for ours, theirs in zip(value.shape, built[name].shape, strict=True)
        )
        for name, value in module.state_dict().items()
        if value.shape != built[name].shape
    }


def resize(module: nn.Module, widths: Mapping[str, tuple[int | None, ...]]) -> None:
    """Give a new architecture the widths that were written down; its weights mean nothing then.

    Args:
        module: Changed in place.
        widths: From a file that may come from elsewhere.

    Raises:
        ModelError: They are not widths of this architecture; the message names the tensor.
    """
    state = module.state_dict()
    resized: dict[str, torch.Tensor] = {}
    for name, sizes in widths.items():
        own = tuple(state[name].shape) if name in state else None
        if own is None or len(own) != len(sizes) or not isinstance(_owner(module, name), RESIZABLE):
            raise ModelError(
                f"the pruned widths name {name!r} with {len(sizes)} axes; the architecture has "
                + ("no such tensor" if own is None else f"{own} there, or a layer of another kind")
            )
        shape = tuple(
            size if given is None else given for size, given in zip(own, sizes, strict=True)
        )
        if not all(1 <= found <= most for found, most in zip(shape, own, strict=True)):
            raise ModelError(
                f"the pruned widths give {name!r} the shape {shape}; expected 1 or more and at "
                f"most the architecture's {own} on each axis"
            )
        resized[name] = state[name].new_zeros(shape)
    replace_tensors(module, resized)


def replace_tensors(module: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put other parameters and buffers into the layers, whose sizes follow them."""
    with torch.no_grad():
        for name, tensor in tensors.items():
            owner, leaf = _owner(module, name), name.rpartition(".")[2]
            old = getattr(owner, leaf)
            if isinstance(old, nn.Parameter):
                setattr(owner, leaf, nn.Parameter(tensor.clone(), requires_grad=old.requires_grad))
            else:
                setattr(owner, leaf, tensor.clone())
    for layer in dict.fromkeys(_owner(module, name) for name in tensors):
        _follow(layer)


def is_depthwise(layer: nn.Module) -> bool:
    """Return whether each channel of a convolution sees itself alone."""
    return (
        isinstance(layer, nn.Conv2d)
        and layer.groups > 1
        and layer.groups == layer.in_channels == layer.out_channels
    )


def _owner(module: nn.Module, name: str) -> nn.Module:
    return module.get_submodule(name.rpartition(".")[0])


def _follow(layer: nn.Module) -> None:
    """Set the sizes that a layer keeps beside its tensors."""
    if isinstance(layer, nn.Conv2d):
        if is_depthwise(layer):
            layer.groups = len(layer.weight)
        layer.out_channels = len(layer.weight)
        layer.in_channels = layer.weight.shape[1] * layer.groups
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, _BATCH_NORM):
        sized = layer.weight if layer.weight is not None else layer.running_mean
        layer.num_features = 0 if sized is None else len(sized)
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = len(layer.weight)
