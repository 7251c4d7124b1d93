"""Importance against definitions written out, and against what the loss does."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from edgecls.compress.groups import find_groups
from edgecls.compress.importance import (
    channel_scores,
    loudness,
    weight_scores,
)
from edgecls.core.errors import ModelError

from .conftest import SIZE, Plain, Residual, images, seeded

LABELS = np.array([0, 1, 2, 1])


def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in (0, 2):
        yield images()[start : start + 2].double().numpy(), LABELS[start : start + 2]


def test_magnitude_is_the_share_of_energy_made_and_read() -> None:
    module = seeded(Plain)
    assert isinstance(module, Plain)
    (group,) = (g for g in find_groups(module, SIZE).groups if g.name == "two.0")

    found = channel_scores(module, [group], "magnitude", batches)["two.0"].numpy()

    made = (module.two[0].weight.detach().numpy() ** 2).sum((1, 2, 3))
    read = (module.hidden.weight.detach().numpy() ** 2).reshape(10, 6, 4).sum((0, 2))
    expected = np.sqrt((made / made.mean() + read / read.mean()) / 2)
    np.testing.assert_allclose(found, expected / expected.mean(), rtol=1e-5)


class Gated(nn.Module):
    """The net with a factor on each channel that the first convolution's norm and ReLU give."""

    def __init__(self, factors: torch.Tensor) -> None:
        super().__init__()
        self.plain, self.factors = seeded(Plain).double(), factors

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        plain = self.plain
        assert isinstance(plain, Plain)
        y = plain.pool(plain.two(plain.one(x) * self.factors[:, None, None])).flatten(1)
        return plain.head(torch.relu(plain.hidden(y)))


def test_taylor_is_how_the_loss_moves() -> None:
    """Numerically: the slope of each image's loss by a factor on a channel."""
    group = next(g for g in find_groups(seeded(Plain), SIZE).groups if g.name == "one.0")

    found = channel_scores(seeded(Plain).double(), [group], "taylor", batches)["one.0"].numpy()

    expected = np.zeros(8)
    for x, y in zip(images().double(), torch.from_numpy(LABELS), strict=True):
        for channel in range(8):
            losses = []
            for step in (1e-5, -1e-5):
                factors = torch.ones(8, dtype=torch.float64)
                factors[channel] += step
                logits = Gated(factors)(x[None])
                losses.append(nn.functional.cross_entropy(logits, y[None]).item())
            expected[channel] += ((losses[0] - losses[1]) / 2e-5) ** 2
    np.testing.assert_allclose(found, expected / expected.mean(), rtol=1e-4)


def test_activation_is_what_the_layer_behind_reads() -> None:
    module = seeded(Plain).double()
    assert isinstance(module, Plain)
    group = next(g for g in find_groups(seeded(Plain), SIZE).groups if g.name == "one.0")

    found = channel_scores(module, [group], "activation", batches)["one.0"].numpy()

    with torch.no_grad():
        read = module.one(images().double()).numpy()
    expected = np.sqrt((read**2).mean((0, 2, 3)))
    np.testing.assert_allclose(found, expected / expected.mean())


def test_importance_of_weights() -> None:
    module = seeded(Residual).double()
    assert isinstance(module, Residual)

    magnitude = weight_scores(module, "magnitude", batches)
    activation = weight_scores(module, "activation", batches)
    taylor = weight_scores(module, "taylor", batches)

    weight = module.depthwise[0].weight.detach()
    torch.testing.assert_close(magnitude["depthwise.0.weight"], weight.abs())
    with torch.no_grad():
        x = module.stem(images().double())
        x = x + module.inner(x)
        read = torch.cat([module.side(x), x], 1).square().mean((0, 2, 3)).sqrt()
    expected = weight.abs() * read[:, None, None, None]
    torch.testing.assert_close(activation["depthwise.0.weight"], expected)
    total = torch.zeros_like(module.head.weight)
    for x, y in batches():
        loss = nn.functional.cross_entropy(module(torch.from_numpy(x)), torch.from_numpy(y))
        total += (torch.autograd.grad(loss, module.head.weight)[0] * module.head.weight).abs()
    torch.testing.assert_close(taylor["head.weight"], total.detach())


def test_channels_are_as_loud_as_their_norms_or_their_filters() -> None:
    """The gate of the squeeze-and-excitation has no norm: there the filters count."""
    plain, residual = seeded(Plain), seeded(Residual)
    assert isinstance(plain, Plain)
    assert isinstance(residual, Residual)
    groups = {group.name: group for group in find_groups(residual, SIZE).groups}
    one = next(group for group in find_groups(plain, SIZE).groups if group.name == "one.0")

    normed = loudness(plain, [one])["one.0"]
    filters = loudness(residual, [groups["side.0"]])["side.0"]

    torch.testing.assert_close(normed, plain.one[1].weight.detach().double().abs())
    parts = (residual.side[0].weight, residual.excite.weight[:4], residual.depthwise[0].weight[:4])
    squares = sum(part.detach().double().square().flatten(1).sum(1) for part in parts)
    torch.testing.assert_close(filters, squares**0.5)


def test_nan_is_refused() -> None:
    module = seeded(Plain)
    groups = find_groups(module, SIZE).groups
    assert isinstance(module, Plain)
    with torch.no_grad():
        module.one[0].weight[0] = float("nan")

    with pytest.raises(ModelError, match="NaN"):
        channel_scores(module, groups, "magnitude", batches)
    with pytest.raises(ModelError, match="NaN"):
        weight_scores(module, "magnitude", batches)
