"""Masks against brute force, and that zeros stay through a training."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edgecls.compress.method import Sparse
from edgecls.compress.sparsity import (
    apply_masks,
    keep_zeros,
    lowest_by_layer,
    lowest_overall,
    nonzero,
    two_of_four,
)

from .conftest import Plain, seeded


def scores() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    shapes = {"a": (4, 8, 3, 3), "b": (6, 4), "c": (3, 3, 1, 1)}
    return {name: torch.rand(shape, generator=draw) for name, shape in shapes.items()}


@given(count=st.integers(0, 321))
def test_the_lowest_of_all_layers(count: int) -> None:
    found = scores()
    order = np.argsort(np.concatenate([s.numpy().ravel() for s in found.values()]))

    masks = lowest_overall(found, count)

    kept = np.concatenate([mask.numpy().ravel() for mask in masks.values()])
    assert set(np.flatnonzero(~kept)) == set(order[:count].tolist())


@given(count=st.integers(0, 321))
def test_the_same_share_of_every_layer(count: int) -> None:
    found = scores()

    masks = lowest_by_layer(found, count)

    gone = {name: int((~mask).sum()) for name, mask in masks.items()}
    assert sum(gone.values()) == count
    for name, score in found.items():
        assert abs(gone[name] - count * score.numel() / 321) <= 1
        kept = score[masks[name]]
        assert not len(kept) or not gone[name] or kept.min() >= score[~masks[name]].max()


def test_ties_go_in_order() -> None:
    masks = lowest_overall({"a": torch.ones(2, 3)}, 2)

    assert masks["a"].tolist() == [[False, False, True], [True, True, True]]


def test_two_of_four_by_hand() -> None:
    masks = two_of_four({"w": torch.tensor([[1.0, 4, 2, 3, 8, 7, 6, 5]]), "odd": torch.ones(2, 3)})

    assert masks["w"].int().tolist() == [[0, 1, 0, 1, 1, 1, 0, 0]]
    assert "odd" not in masks


@pytest.mark.parametrize("shape", [(5, 8), (3, 12, 3, 3)])
def test_two_of_four_is_the_best_pair(shape: tuple[int, ...]) -> None:
    """Along the input axis, at each place of the kernel: no other two are worth more."""
    score = torch.rand(shape, generator=torch.Generator().manual_seed(0)).numpy()

    mask = two_of_four({"w": torch.from_numpy(score)})["w"].numpy()

    flat, kept = score.reshape(*shape[:2], -1), mask.reshape(*shape[:2], -1)
    for output, place in itertools.product(range(shape[0]), range(flat.shape[2])):
        for start in range(0, shape[1], 4):
            four = flat[output, start : start + 4, place]
            chosen = kept[output, start : start + 4, place]
            best = max(itertools.combinations(range(4), 2), key=lambda pair: four[list(pair)].sum())
            assert tuple(np.flatnonzero(chosen)) == best


@pytest.mark.parametrize("pattern", ["global", "layer"])
def test_steps_end_at_the_count(pattern: str) -> None:
    """Zeros of the first step are zeros after the second, whatever was learned between."""
    module = seeded(Plain)
    method = Sparse(pattern=pattern, count=500)  # type: ignore[arg-type]

    method.cut(module, 0.5, tuple)
    first = {name: value.eq(0) for name, value in module.named_parameters() if value.ndim > 1}
    zeros = sum(int(mask.sum()) for mask in first.values())
    method.cut(module, 1.0, tuple)

    assert zeros == round(500 * (1 - 0.5**3))
    now = dict(module.named_parameters())
    assert sum(int(now[name].eq(0).sum()) for name in first) == 500
    assert all(bool(now[name].eq(0)[mask].all()) for name, mask in first.items())
    assert nonzero(module) == sum(p.numel() for p in module.parameters()) - 500


def test_zeros_stay_while_the_others_learn() -> None:
    module = seeded(Plain)
    apply_masks(module, two_of_four({"hidden.weight": module.get_parameter("hidden.weight").abs()}))
    before = module.get_parameter("hidden.weight").detach().clone()
    again = keep_zeros(module)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)

    for _ in range(3):
        loss = nn.functional.cross_entropy(module(torch.randn(4, 3, 8, 8)), torch.tensor([0] * 4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        again(module, 0)

    after = module.get_parameter("hidden.weight").detach()
    assert torch.equal(after == 0, before == 0)
    assert not torch.equal(after, before)
