"""Which channels of a model can be taken away together, found by torch-pruning and then proved."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn

from ..core.errors import MissingPackageError, ModelError
from ..core.values import relative_difference
from ..models.widths import RESIZABLE, is_depthwise
from .channels import ChannelGroup, Slice, remove, silence

# Sums in another order differ by 1e-6 or so; a channel in the wrong place by a part of the answer.
_LIMIT: Final = 1e-4
_IMAGES: Final = 2
# Of the head: nobody wants to hear that classes stay.
_LOGITS: Final = "its channels are the logits"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What can be pruned.

    Attributes:
        groups: Each with two channels or more.
        skipped: By the first layer of a group that stays whole: why.
    """

    groups: tuple[ChannelGroup, ...]
    skipped: dict[str, str]


def find_groups(module: nn.Module, size: tuple[int, int, int]) -> Found:
    """Return the groups of channels that can be taken out of a model.

    torch-pruning follows the channels through the graph, and says nothing where it loses them (an
    option-A shortcut pads channels, an attention splits them). So each group is proved on a copy:
    the model without two of its channels must answer as the whole model in which they are zero.

    Args:
        module: On the CPU; unchanged.
        size: (C, H, W) of its input.

    Raises:
        MissingPackageError: torch-pruning is not installed.
        ModelError: No group can be pruned; the message names the first layer and why.
    """
    traced = trace_groups(module, size)
    skipped = dict(traced.skipped)
    found = []
    for group in traced.groups:
        channels = {group.name: sorted({0, group.width // 2} - {group.width - 1})}
        reason = broken(module, (group,), channels, size)
        if reason is None:
            found.append(group)
        elif reason != _LOGITS:
            skipped[group.name] = reason
    if not found:
        raise nothing_to_prune(skipped)
    return Found(groups=tuple(found), skipped=skipped)


def nothing_to_prune(skipped: Mapping[str, str]) -> ModelError:
    """Return the error for a model whose graph pruning would break everywhere."""
    layer, reason = next(
        iter(skipped.items()),
        ("the model", "no convolution or linear layer lies between its input and its logits"),
    )
    return ModelError(
        f"no channels can be taken out of this model: {layer}: {reason}; prune its weights "
        "instead: --method global, layer or 2:4"
    )


def trace_groups(module: nn.Module, size: tuple[int, int, int]) -> Found:
    """Return the groups that torch-pruning finds, unproved; arguments as for ``find_groups``."""
    trial = copy.deepcopy(module).eval().requires_grad_(True)
    names = {part: name for name, part in trial.named_modules()}
    found: list[ChannelGroup] = []
    skipped: dict[str, str] = {}
    for items in _traced(trial, _images(size)):
        root = names[items[0][0]]
        groups, problem = _groups(root, items, names)
        found += [group for group in groups if group.width > 1]
        if problem:
            skipped[root] = problem
    return Found(groups=tuple(found), skipped=skipped)


def broken(
    module: nn.Module, groups: Sequence[ChannelGroup], channels: Mapping[str, Sequence[int]],
    size: tuple[int, int, int],
) -> str | None:  # fmt: skip
    """Return how the model without channels differs from the model in which they are zero."""
    images = _images(size)
    whole, narrow = copy.deepcopy(module).eval(), copy.deepcopy(module).eval()
    try:
        silence(whole, groups, channels)
        remove(narrow, groups, channels)
        with torch.inference_mode():
            expected, found = whole(images), narrow(images)
    except Exception as error:  # the model's own code fails in its own way
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        return f"without a channel the model does not run: {text}"
    if expected.shape != found.shape:
        return _LOGITS
    difference = relative_difference(expected.numpy(), found.numpy())
    if difference > _LIMIT:
        return (
            f"without a channel the model answers otherwise than with zeros in it (by "
            f"{difference:.2g} of its largest logit)"
        )
    return None


def _images(size: tuple[int, int, int]) -> torch.Tensor:
    return torch.randn((_IMAGES, *size), generator=torch.Generator().manual_seed(0))


_Items = list[tuple[Any, bool, Sequence[int], Sequence[int]]]
"""Layer, whether it makes the channels, places along its axis, the channel of each place."""


def _traced(module: nn.Module, images: torch.Tensor) -> Iterable[_Items]:
    """Return what torch-pruning finds, as data."""
    try:
        import torch_pruning
    except ModuleNotFoundError as error:
        if error.name != "torch_pruning":
            raise
        raise MissingPackageError("torch-pruning", "compress") from error
    # Its graph follows autograd's; what it says of unknown operations is judged by the proof.
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")
        try:
            graph = torch_pruning.DependencyGraph().build_dependency(
                module, example_inputs=images, verbose=False
            )
            groups = list(graph.get_all_groups())
        except Exception as error:  # a model can break its tracing in any way
            raise ModelError(
                f"torch-pruning cannot follow this model's channels ({type(error).__name__}: "
                f"{error}); prune its weights instead: --method global, layer or 2:4"
            ) from error
    return [
        [
            (item.dep.target.module, graph.is_out_channel_pruning_fn(item.dep.handler),
             item.idxs, item.root_idxs)
            for item in group.items
        ]
        for group in groups
    ]  # fmt: skip


def _groups(
    root: str, items: _Items, names: Mapping[nn.Module, str]
) -> tuple[list[ChannelGroup], str]:
    """Return the layers that can change together, or why they cannot."""
    width = len(items[0][2])
    slices = []
    for layer, makes, places, channels in items:
        if isinstance(layer, nn.Parameter):
            return [], f"a parameter of shape {tuple(layer.shape)} outside any layer follows it"
        if layer not in names or (isinstance(layer, nn.PReLU) and layer.num_parameters == 1):
            continue  # an operation without weights, or with one for all channels
        name = names[layer]
        grouped = isinstance(layer, nn.Conv2d) and layer.groups > 1 and not is_depthwise(layer)
        if not isinstance(layer, RESIZABLE) or grouped:
            kind = "grouped convolution" if grouped else type(layer).__name__
            return [], f"{name} ({kind}) follows it, whose channels cannot be taken out"
        by_channel: list[list[int]] = [[] for _ in range(width)]
        for place, channel in zip(places, channels, strict=True):
            by_channel[channel].append(place)
        has = _channels_of(layer, makes=makes)
        if max(places) >= has:
            return [], (
                f"the graph leads to channel {max(places) + 1} of {name}, which has {has}: "
                "padding, splits or reshapes between them move channels"
            )
        # A depthwise convolution and a norm pass channels on: theirs are made once.
        makes = makes or is_depthwise(layer)
        slices.append(Slice(layer=name, makes=makes, places=tuple(map(tuple, by_channel))))
    makers = [
        name
        for layer, name in names.items()
        if isinstance(layer, nn.Conv2d | nn.Linear) and not is_depthwise(layer)
    ]
    return list(_alike(root, width, slices, makers)), ""


def _channels_of(layer: nn.Module, *, makes: bool) -> int:
    if isinstance(layer, nn.Linear | nn.Conv2d) and not makes and not is_depthwise(layer):
        return layer.weight.shape[1]
    return next(len(value) for value in layer.state_dict().values() if value.ndim)


def _alike(
    root: str, width: int, slices: Sequence[Slice], makers: Sequence[str]
) -> Iterator[ChannelGroup]:
    """Yield a group for each set of layers that share channels, named after the first maker.

    A layer behind a concatenation has the channels of several others: were they ranked together,
    one of these could lose all.
    """
    kinds: dict[tuple[bool, ...], list[int]] = {}
    for channel in range(width):
        kinds.setdefault(tuple(bool(part.places[channel]) for part in slices), []).append(channel)
    for number, (has, channels) in enumerate(kinds.items()):
        parts = tuple(
            Slice(
                layer=part.layer, makes=part.makes, places=tuple(part.places[c] for c in channels)
            )
            for part, there in zip(slices, has, strict=True)
            if there
        )
        others = [other for other in kinds if other != has]
        own = [
            part.layer
            for place, part in enumerate(slices)
            if has[place] and part.makes and not any(other[place] for other in others)
        ]
        name = next((maker for maker in makers if maker in own), f"{root}[{number}]")
        yield ChannelGroup(name=name, width=len(channels), slices=parts)
