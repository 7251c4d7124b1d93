"""How much goes, at which widths, and filters that grow again."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edgecls.compress.allotment import allot, partly, rounded_width, weakest
from edgecls.compress.channels import ChannelGroup, silence
from edgecls.compress.goal import parse_goal
from edgecls.compress.groups import trace_groups
from edgecls.compress.method import Soft, Structured
from edgecls.core.errors import UsageError

from .conftest import SIZE, Plain, Residual, images, seeded


@pytest.mark.parametrize(
    ("text", "original", "limit"),
    [
        ("params=0.5x", 1000, 500), ("params=20k", 1e6, 20_000), ("macs=1.5M", 1e9, 1_500_000),
        ("size=100kB", 0, 100_000), ("size=1MiB", 0, 1_048_576), ("latency=0.6x", 1, 0.6),
        ("params=1234", 0, 1234),
    ],
)  # fmt: skip
def test_goals(text: str, original: float, limit: float) -> None:
    assert parse_goal(text).limit(original) == pytest.approx(limit)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("half", "expected params, macs"), ("speed=2x", "expected params, macs"),
        ("params=1x", "between 0x and 1x"), ("params=0x", "between 0x and 1x"),
        ("latency=5ms", "milliseconds are not the device's"), ("size=3M", "expected a unit"),
        ("params=3kB", "expected a unit"), ("params=-3", "expected params, macs"),
        ("params=nan", "expected params, macs"), ("size=0kB", "more than 0"),
    ],
)  # fmt: skip
def test_goals_that_are_none(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_goal(text)


@given(width=st.integers(1, 300), multiple=st.integers(1, 64), share=st.floats(0, 1, width=32))
def test_widths_are_multiples_or_as_they_were(width: int, multiple: int, share: float) -> None:
    found = rounded_width((1 - share) * width, width, multiple)

    assert 1 <= found <= width
    assert found == width or found % multiple == 0
    assert found == width or abs(found - (1 - share) * width) <= max(multiple / 2, multiple)


def group(name: str, width: int) -> ChannelGroup:
    return ChannelGroup(name=name, width=width, slices=())


def test_even_and_ranked_shares() -> None:
    groups = [group("a", 16), group("b", 16)]
    scores = {"a": torch.arange(16.0), "b": torch.arange(16.0) + 8}

    assert allot(groups, 0.5, 4) == {"a": 8, "b": 8}
    # The 16 lowest of all: 0..7 of a, then of 8..15, which both have, 4 of each.
    assert allot(groups, 0.5, 1, scores) == {"a": 4, "b": 12}
    assert allot(groups, 1.0, 4) == {"a": 4, "b": 4}
    assert allot(groups, 0.0, 4, scores) == {"a": 16, "b": 16}


def test_the_way_to_the_end() -> None:
    begin, end = {"a": 64, "b": 16}, {"a": 24, "b": 16}

    assert partly(begin, end, 0.5, 8) == {"a": 48, "b": 16}
    assert partly(begin, end, 1.0, 8) == end


def test_the_weakest_go() -> None:
    scores = {"a": torch.tensor([3.0, 1.0, 2.0, 1.0])}

    assert weakest([group("a", 4)], scores, {"a": 2}) == {"a": (1, 3)}
    assert weakest([group("a", 4)], scores, {"a": 4}) == {}


def test_structured_reaches_the_widths_in_steps() -> None:
    module = seeded(Residual)
    method = Structured(
        size=SIZE, begin={"stem.0": 8, "squeeze": 4},
        end={"stem.0": 4, "squeeze": 2}, multiple=2,
    )  # fmt: skip

    method.cut(module, 0.5, tuple)
    assert isinstance(module, Residual)
    halfway = (module.stem[0].out_channels, module.squeeze.out_channels)
    method.cut(module, 1.0, tuple)

    assert halfway == (6, 4)
    assert (module.stem[0].out_channels, module.squeeze.out_channels) == (4, 2)
    assert (module.depthwise[0].groups, module.side[0].in_channels) == (8, 4)
    assert module(images()).shape == (4, 3)


@pytest.mark.parametrize("name", ["one.0", "hidden"])
def test_silent_filters_grow_again_and_go_without_a_change(name: str) -> None:
    """He et al. 2018: what was zero learns on; only what is zero in the end goes."""
    module = seeded(Plain)
    widths = {"one.0": 8, "two.0": 6, "hidden": 10}
    method = Soft(size=SIZE, end=widths | {name: 4}, epochs=3)
    scale = module.get_parameter({"one.0": "one.1.weight"}.get(name, f"{name}.weight"))

    def silent() -> set[int]:
        zero = scale.detach().reshape(len(scale), -1).eq(0).all(1)
        return set(torch.nonzero(zero).flatten().tolist())

    method.cut(module, 1.0, tuple)
    first = silent()
    hooks = method.hooks(module)
    module.train()
    nn.functional.cross_entropy(module(images()), torch.tensor([0, 1, 2, 1])).backward()
    assert scale.grad is not None
    reached = {channel for channel in first if scale.grad[channel].abs().sum() > 0}
    with torch.no_grad():
        scale[min(first)] = 10.0
    assert hooks.after_epoch is not None
    assert hooks.after_step is not None
    hooks.after_step(module, 0)
    grown = silent()
    hooks.after_epoch(module)
    module.eval()
    second = silent()
    with torch.no_grad():
        scale[min(second)] = 0.01 * scale[max(set(range(widths[name])) - second)]
    hooks.after_step(module, 1)
    expected = copy.deepcopy(module)
    silence(expected, trace_groups(module, SIZE).groups, {name: sorted(second)})
    before = module(images())
    method.finish(module)

    assert len(first) == len(second) == widths[name] - 4
    assert reached == first, "a gradient reaches every silent filter"
    assert grown == first - {min(first)}, "in the first half it may"
    assert silent() == second, "in the second it may not"
    assert first - second == {min(first)}
    torch.testing.assert_close(module(images()), expected(images()))
    torch.testing.assert_close(module(images()), before, atol=0.02, rtol=0.02)
    assert len(module.get_parameter(f"{name}.weight")) == 4
