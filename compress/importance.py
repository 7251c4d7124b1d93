"""What each channel, and each weight, is worth: by magnitude, by gradient, by activation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, TypeAlias, get_args

import torch
from numpy.typing import NDArray
from torch import nn

from ..core.errors import ModelError
from ..core.values import Tensor
from .channels import ChannelGroup, Slice, loud_parts

Importance = Literal["magnitude", "taylor", "activation"]
IMPORTANCES: tuple[Importance, ...] = get_args(Importance)

Scores: TypeAlias = "dict[str, torch.Tensor]"
"""By group shape (width,), or by weight its own shape; larger is worth more."""

Batches: TypeAlias = "Iterable[tuple[Tensor, NDArray[Any]]]"
"""A few batches: images (N, C, H, W) float32 and their classes (N,)."""


def weights_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return the weights of convolutions and linear layers: what sparsity is about."""
    return {
        f"{name}.weight": layer.weight
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    }


def channel_scores(
    module: nn.Module, groups: Sequence[ChannelGroup], kind: Importance,
    batches: Callable[[], Batches],
) -> Scores:  # fmt: skip
    """Return what each channel of each group is worth, 1 on average in every group.

    ``magnitude``: the root of the mean, over the layers that make or read the channel, of its
    weights' sum of squares as a share of the layer's mean. ``taylor``: the sum over images of the
    square of the loss's slope by a factor on the channel: how the loss moves, to first order,
    without it (Molchanov et al. 2017, arXiv:1611.06440). ``activation``: the root mean square of
    what the layers behind read from it.

    Raises:
        ModelError: A score is NaN or infinite, or nothing reads the channels.
    """
    if kind == "magnitude":
        found = {group.name: _magnitude(module, group) for group in groups}
    elif kind == "taylor":
        found = {group.name: torch.zeros(group.width, dtype=torch.float64) for group in groups}
        for slopes in _slopes(module, batches()):
            for group in groups:
                found[group.name] += _slope(group, slopes).square().sum(0)
    else:
        squares = _input_squares(module, batches())
        found = {group.name: _activation(group, squares) for group in groups}
    for name, score in found.items():
        if not bool(score.isfinite().all()):
            raise ModelError(f"{name}: the importance of its channels is NaN or infinite")
    return {name: score / score.mean().clamp_min(1e-30) for name, score in found.items()}


def weight_scores(
    module: nn.Module, kind: Importance, batches: Callable[[], Batches]
) -> Scores:  # fmt: skip
    """Return what each weight is worth, by the weight's name, in its shape.

    ``magnitude``: |w|. ``taylor``: the sum over batches of |w times gradient|. ``activation``: |w|
    times the root mean square of the input that it multiplies (Sun et al. 2023, arXiv:2306.11695).

    Raises:
        ModelError: A score is NaN or infinite.
    """
    found = {name: value.detach().abs().double() for name, value in weights_of(module).items()}
    if kind == "taylor":
        found = {name: torch.zeros_like(value) for name, value in found.items()}
        for products in _products(module, batches()):
            for name, score in found.items():
                score += products[name].abs()
    elif kind == "activation":
        squares = _input_squares(module, batches())
        for name, score in found.items():
            layer = name.removesuffix(".weight")
            if layer not in squares:  # never run: worth nothing
                score.zero_()
                continue
            found[name] = score * _per_input(module.get_submodule(layer), squares[layer].sqrt())
    for name, score in found.items():
        if not bool(score.isfinite().all()):
            raise ModelError(f"{name}: the importance of its weights is NaN or infinite")
    return found


def loudness(module: nn.Module, groups: Sequence[ChannelGroup]) -> Scores:
    """Return how strongly each channel is made: 0 exactly where it is silent.

    The L2 norm of its norms' scales, where each filter has a norm behind it; else of its filters.
    """
    found: Scores = {}
    for group in groups:
        squares = torch.zeros(group.width, dtype=torch.float64)
        for part in loud_parts(module, group):
            weight = module.get_parameter(f"{part.layer}.weight").detach().cpu().double()
            squares += _by_channel(weight.square().reshape(len(weight), -1).sum(1), part)
        found[group.name] = squares.sqrt()
    return found


def _magnitude(module: nn.Module, group: ChannelGroup) -> torch.Tensor:
    shares = []
    for part in group.slices:
        layer = module.get_submodule(part.layer)
        if isinstance(layer, nn.Conv2d | nn.Linear):
            squares = layer.weight.detach().double().square()
            by_place = squares.flatten(1).sum(1) if part.makes else _along_inputs(squares)
            energy = _by_channel(by_place, part)
            shares.append(energy / energy.mean().clamp_min(1e-30))
    return torch.stack(shares).mean(0).sqrt()


def _slope(group: ChannelGroup, slopes: Scores) -> torch.Tensor:
    """Return each image's slope by a factor on each channel, as the layers behind read it."""
    read = [part for part in group.slices if not part.makes and part.layer in slopes]
    if not read:
        raise ModelError(f"{group.name}: nothing reads its channels; use --importance magnitude")
    by_image = [
        torch.stack([slopes[part.layer][:, list(places)].sum(1) for places in part.places], 1)
        for part in read
    ]
    return torch.stack(by_image).sum(0)


def _activation(group: ChannelGroup, squares: Scores) -> torch.Tensor:
    read = [
        _by_channel(squares[part.layer], part)
        for part in group.slices
        if not part.makes and part.layer in squares
    ]
    if not read:
        raise ModelError(f"{group.name}: nothing reads its channels; use --importance magnitude")
    return torch.stack(read).mean(0).sqrt()


def _by_channel(by_place: torch.Tensor, part: Slice) -> torch.Tensor:
    """Return the sum over each channel's places."""
    return torch.stack([by_place[list(places)].sum() for places in part.places])


def _along_inputs(values: torch.Tensor) -> torch.Tensor:
    return values.transpose(0, 1).flatten(1).sum(1)


def _products(module: nn.Module, batches: Batches) -> Iterator[Scores]:
    """Yield each parameter times the gradient of a batch's mean loss, in evaluation mode."""
    module.eval()
    parameters = dict(module.named_parameters())
    learns = [value.requires_grad for value in parameters.values()]
    module.requires_grad_(True)
    try:
        for images, labels in batches:
            with torch.enable_grad():
                loss = nn.functional.cross_entropy(
                    module(torch.as_tensor(images)), torch.as_tensor(labels)
                )
                gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            yield {
                name: (
                    torch.zeros_like(value) if gradient is None else value.detach() * gradient
                ).double()
                for (name, value), gradient in zip(parameters.items(), gradients, strict=True)
            }
    finally:
        for value, own in zip(parameters.values(), learns, strict=True):
            value.requires_grad_(own)


def _slopes(module: nn.Module, batches: Batches) -> Iterator[Scores]:
    """Yield, of each layer's inputs, input times gradient of the image's loss: (images, inputs)."""
    module.eval()
    inputs: list[tuple[str, int, torch.Tensor]] = []

    def watch(name: str, axis: int) -> Any:
        def hook(layer: nn.Module, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            del layer
            # A copy: what comes after may change the tensor in place.
            own = given[0].clone() if given[0].requires_grad else given[0].clone().requires_grad_()
            inputs.append((name, axis, own))
            return (own, *given[1:])

        return hook

    handles = _watched(module, watch)
    try:
        for images, labels in batches:
            inputs.clear()
            with torch.enable_grad():
                loss = nn.functional.cross_entropy(
                    module(torch.as_tensor(images)), torch.as_tensor(labels), reduction="sum"
                )
                tensors = [tensor for _, _, tensor in inputs]
                gradients = torch.autograd.grad(loss, tensors, allow_unused=True)
            slopes: Scores = {}
            for (name, axis, tensor), gradient in zip(inputs, gradients, strict=True):
                if gradient is not None:
                    values = (tensor.detach() * gradient).double().movedim(axis, 1)
                    slope = values.reshape(*values.shape[:2], -1).sum(2)
                    slopes[name] = slopes.get(name, 0) + slope
            yield slopes
    finally:
        for handle in handles:
            handle.remove()


def _watched(module: nn.Module, watch: Callable[[str, int], Any]) -> list[Any]:
    """Put a hook before each convolution and linear layer, by its name and its inputs' axis."""
    return [
        layer.register_forward_pre_hook(watch(name, 1 if isinstance(layer, nn.Conv2d) else -1))
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]


def _input_squares(module: nn.Module, batches: Batches) -> Scores:
    """Return the mean square of each convolution's and linear layer's inputs, by input channel."""
    module.eval()
    sums: Scores = {}
    counts: dict[str, int] = {}

    def watch(name: str, axis: int) -> Any:
        def hook(layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            del layer
            values = inputs[0].detach().movedim(axis, 0).flatten(1).double()
            sums[name] = sums.get(name, 0) + values.square().sum(1)
            counts[name] = counts.get(name, 0) + values.shape[1]

        return hook

    handles = _watched(module, watch)
    try:
        with torch.inference_mode():
            for images, _ in batches:
                module(torch.as_tensor(images))
    finally:
        for handle in handles:
            handle.remove()
    return {name: total / max(1, counts[name]) for name, total in sums.items()}


def _per_input(layer: nn.Module, values: torch.Tensor) -> torch.Tensor:
    """Return values by input channel in the shape that multiplies the layer's weight."""
    if isinstance(layer, nn.Linear):
        return values[None, :]
    assert isinstance(layer, nn.Conv2d)
    if layer.groups == 1:
        return values[None, :, None, None]
    per_group = layer.in_channels // layer.groups
    by_filter = values.reshape(layer.groups, per_group)
    repeated = by_filter.repeat_interleave(layer.out_channels // layer.groups, 0)
    return repeated[:, :, None, None]
