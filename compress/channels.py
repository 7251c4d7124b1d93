"""Channels that go together: silenced in place, or taken out of every layer that has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ..models.widths import replace_tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """A layer's part in a group.

    Attributes:
        layer: Its name.
        makes: Whether it makes the channels (axis 0 of its tensors), or reads them (axis 1).
        places: By channel of the group: its places along that axis. A linear layer behind a
            flattened map has several for each, a layer behind a concatenation another offset.
    """

    layer: str
    makes: bool
    places: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelGroup:
    """Channels that layers make and read together.

    Attributes:
        name: The first layer that makes them.
        width: How many there are.
        slices: All layers that have them.
    """

    name: str
    width: int
    slices: tuple[Slice, ...]


def tensors_of(module: nn.Module, part: Slice) -> Iterator[tuple[str, torch.Tensor, int]]:
    """Yield name, tensor and axis of all that holds a slice's channels."""
    layer = module.get_submodule(part.layer)
    axis = 0 if part.makes else 1
    for leaf in ("weight", "bias", "running_mean", "running_var"):
        tensor = getattr(layer, leaf, None)
        if isinstance(tensor, torch.Tensor) and tensor.ndim > axis:
            yield f"{part.layer}.{leaf}", tensor, axis


@torch.no_grad()
def remove(
    module: nn.Module, groups: Sequence[ChannelGroup], channels: Mapping[str, Sequence[int]]
) -> None:
    """Take channels out of all layers of their groups; the tensors become smaller.

    Args:
        module: Changed in place.
        groups: As they were found on this very module.
        channels: What goes, by the group's name; others stay.
    """
    gone: dict[str, tuple[torch.Tensor, dict[int, set[int]]]] = {}
    for group in groups:
        for part in group.slices:
            places = {place for c in channels.get(group.name, ()) for place in part.places[c]}
            for name, tensor, axis in tensors_of(module, part) if places else ():
                gone.setdefault(name, (tensor, {}))[1].setdefault(axis, set()).update(places)
    smaller = {}
    for name, (tensor, axes) in gone.items():
        for axis, places in axes.items():
            kept = [place for place in range(tensor.shape[axis]) if place not in places]
            tensor = tensor.index_select(axis, torch.tensor(kept, device=tensor.device))
        smaller[name] = tensor
    replace_tensors(module, smaller)


def loud_parts(module: nn.Module, group: ChannelGroup) -> list[Slice]:
    """Return what sets how strong a group's channels are: its norms' scales, else its filters."""
    made = [part for part in group.slices if part.makes]
    layers = [module.get_submodule(part.layer) for part in made]
    filters = [p for p, x in zip(made, layers, strict=True) if isinstance(x, nn.Conv2d | nn.Linear)]
    norms = [
        part
        for part, layer in zip(made, layers, strict=True)
        if hasattr(layer, "running_mean") and getattr(layer, "weight", None) is not None
    ]
    return norms if len(norms) == len(filters) else filters


@torch.no_grad()
def hush(
    module: nn.Module, groups: Sequence[ChannelGroup], channels: Mapping[str, Sequence[int]],
    shift: float,
) -> None:  # fmt: skip
    """Make channels nearly zero so that they can return: see ``method.Soft``.

    Args:
        module: Changed in place.
        groups: As they were found on a module of these widths.
        channels: Which, by the group's name.
        shift: What they answer instead.
    """
    for group in groups:
        for part in loud_parts(module, group):
            places = [place for c in channels.get(group.name, ()) for place in part.places[c]]
            layer = module.get_submodule(part.layer)
            for leaf, value in (("weight", 0.0), ("bias", shift)):
                tensor = getattr(layer, leaf, None)
                if isinstance(tensor, torch.Tensor) and places:
                    tensor[places] = value


@torch.no_grad()
def silence(
    module: nn.Module, groups: Sequence[ChannelGroup], channels: Mapping[str, Sequence[int]]
) -> None:
    """Make channels exactly zero in evaluation mode; the tensors keep their sizes.

    Filters, biases and norms' shifts become zero, and with them the mean that a norm expects.
    """
    for group in groups:
        for part in group.slices:
            places = [place for c in channels.get(group.name, ()) for place in part.places[c]]
            if not places or not part.makes:
                continue
            makes = isinstance(module.get_submodule(part.layer), nn.Conv2d | nn.Linear)
            for name, tensor, _ in tensors_of(module, part):
                if name.endswith((".bias", ".running_mean")) or (makes and name.endswith("weight")):
                    tensor[places] = 0.0
