"""Which channels go together, and what the model answers without them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from edgecls.compress.channels import ChannelGroup, remove, silence
from edgecls.compress.groups import find_groups, trace_groups
from edgecls.core.errors import MissingPackageError, ModelError
from edgecls.models.cifar_resnet import CifarResNet

from .conftest import SIZE, Padded, Plain, Residual, conv, images, seeded


def layers(group: ChannelGroup) -> set[str]:
    return {("makes " if part.makes else "reads ") + part.layer for part in group.slices}


def by_name(module: nn.Module) -> dict[str, ChannelGroup]:
    return {group.name: group for group in find_groups(module, SIZE).groups}


def answer(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = module(x)
    return found


def test_groups_of_a_plain_net() -> None:
    found = by_name(seeded(Plain))

    assert {name: group.width for name, group in found.items()} == {
        "one.0": 8, "two.0": 6, "hidden": 10,
    }  # fmt: skip
    assert layers(found["one.0"]) == {"makes one.0", "makes one.1", "reads two.0"}
    assert layers(found["two.0"]) == {"makes two.0", "makes two.1", "reads hidden"}
    (read,) = [part for part in found["two.0"].slices if not part.makes]
    assert read.places[1] == (4, 5, 6, 7), "each channel is a map of 2x2"


def test_removal_is_slicing_by_hand() -> None:
    module, by_hand = seeded(Plain), seeded(Plain)
    found = by_name(module)

    remove(module, [found["two.0"]], {"two.0": [1, 4]})

    assert isinstance(by_hand, Plain)
    keep = [0, 2, 3, 5]
    columns = [4 * channel + place for channel in keep for place in range(4)]
    convolution, norm = by_hand.two[0], by_hand.two[1]
    y = nn.functional.conv2d(by_hand.one(images()), convolution.weight[keep], padding=1)
    y = nn.functional.batch_norm(
        y, norm.running_mean[keep], norm.running_var[keep], norm.weight[keep], norm.bias[keep]
    )
    y = by_hand.pool(torch.relu(y)).flatten(1)
    y = nn.functional.linear(y, by_hand.hidden.weight[:, columns], by_hand.hidden.bias)
    expected = by_hand.head(torch.relu(y))
    torch.testing.assert_close(answer(module, images()), expected)
    assert isinstance(module, Plain)
    sizes = (module.two[0].out_channels, module.two[1].num_features, module.hidden.in_features)
    assert sizes == (4, 4, 16)


@pytest.mark.parametrize("make", [Plain, Residual])
def test_all_groups_at_once_answer_as_with_zeros(make: type[nn.Module]) -> None:
    """Concatenation, sum, depthwise and gate: what is read after two groups changed."""
    whole, narrow = seeded(make), seeded(make)
    found = find_groups(whole, SIZE).groups
    channels = {group.name: list(range(0, group.width, 3)) for group in found}

    silence(whole, found, channels)
    remove(narrow, found, channels)

    torch.testing.assert_close(answer(narrow, images()), answer(whole, images()))
    assert not torch.allclose(answer(seeded(make), images()), answer(whole, images()))
    for group in found:
        layer = narrow.get_submodule(group.name)
        assert len(layer.weight) == group.width - len(channels[group.name])


def test_groups_follow_sums_concatenations_and_gates() -> None:
    found = by_name(seeded(Residual))

    assert set(found) == {"stem.0", "side.0", "squeeze"}
    assert layers(found["stem.0"]) >= {
        "makes stem.0", "makes inner.0", "reads inner.0", "reads side.0", "makes depthwise.0",
        "makes excite", "reads head",
    }  # fmt: skip
    (offset,) = [part for part in found["stem.0"].slices if part.layer == "head"]
    assert offset.places[0] == (4,), "behind the four channels of the side"


def test_a_padded_shortcut_keeps_its_channels() -> None:
    """torch-pruning follows the zeros as if they were not there."""
    found = find_groups(seeded(Padded, inner=True), SIZE)

    assert [group.name for group in found.groups] == ["inner.0"]
    (reason,) = found.skipped.values()
    assert "padding, splits or reshapes" in reason


def test_shortcuts_of_a_cifar_resnet_are_found_by_the_proof() -> None:
    """All shapes agree there: only the answers tell that channels moved."""
    module = seeded(lambda: CifarResNet(20))
    size = (3, 32, 32)
    traced = {group.name: group for group in trace_groups(module, size).groups}

    found = find_groups(module, size)

    inner = {f"layer{stage}.{block}.conv1" for stage in (1, 2, 3) for block in range(3)}
    assert {group.name for group in found.groups} == inner
    assert set(traced) - inner == {"conv1", "linear"}
    assert set(found.skipped) == {"conv1"}
    assert "answers otherwise than with zeros" in found.skipped["conv1"]


def test_a_model_that_would_break_everywhere_is_refused() -> None:
    with pytest.raises(ModelError, match=r"no channels can be taken out.*(stem\.0|wide)"):
        find_groups(seeded(Padded, inner=False), SIZE)


class Grouped(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            conv(3, 8), conv(8, 8, groups=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.LayerNorm(8), nn.Linear(8, 6), nn.Sigmoid(), nn.Linear(6, 3),
        )  # fmt: skip


def test_what_cannot_be_sliced_says_why() -> None:
    """Groups of channels, a norm over all of them, an activation that is not 0 at 0."""
    with pytest.raises(ModelError) as caught:
        find_groups(seeded(Grouped), SIZE)
    traced = trace_groups(seeded(Grouped), SIZE)

    assert "grouped convolution" in traced.skipped["0.0"]
    assert "grouped convolution" in traced.skipped["1.0"] or "LayerNorm" in traced.skipped["1.0"]
    assert {group.name for group in traced.groups} == {"5", "7"}, "0.5 is added to what follows"
    assert "no channels" in str(caught.value)


def test_a_model_is_left_as_it_was() -> None:
    module = seeded(Residual)
    before = copy.deepcopy(module.state_dict())

    find_groups(module, SIZE)

    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_without_torch_pruning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.__import__", _import_without("torch_pruning"))
    with pytest.raises(MissingPackageError, match=r"edgecls\[compress\]"):
        find_groups(seeded(Plain), SIZE)


def _import_without(name: str) -> object:
    real = __import__

    def fake(found: str, *arguments: object, **more: object) -> object:
        if found == name:
            raise ModuleNotFoundError(name=name)
        return real(found, *arguments, **more)  # type: ignore[arg-type]

    return fake
