"""How much must go to reach a goal: decided on widths, before anything is learned."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec
import torch
from torch import nn

from ..compress.allotment import Allotment, Kept, allot, weakest
from ..compress.channels import remove
from ..compress.goal import Goal
from ..compress.groups import Found
from ..compress.importance import Batches, Importance, channel_scores, weights_of
from ..compress.method import CHANNELS, Method, MethodName, Soft, Sparse, Structured
from ..compress.sparsity import nonzero
from ..core.errors import UsageError
from ..core.progress import Progress
from ..models.cost import Cost, model_cost
from .prune_artefact import Shipped, Shipping
from .speed import time_ratio

# Measured again, a ratio differs by a few percent: the search aims below the goal.
_AIM: Final = 0.95
# Each round exports and times a file, or only counts.
_MEASURED_ROUNDS: Final = 8
_COUNTED_ROUNDS: Final = 24
# With more zeros than this nothing is left to learn from.
_MOST_ZEROS: Final = 0.995
_LISTED: Final = 3

_USELESS: Final = {
    "macs": "a zero is multiplied like any other number: no kernel of these targets leaves it out",
    "latency": "a zero is multiplied like any other number: no kernel of these targets leaves it "
    "out, so it would be as slow as before",
    "size": "a zero takes as many bytes in the file as any other number (only an archive of it "
    "would shrink)",
}


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """How much goes.

    Attributes:
        begin: Widths of the groups of channels; none where single weights go.
        end: What they are to be.
        zeros: How many weights are to be zero; 0 where channels go, or 2:4 decides.
        reachable: Whether that reaches the goal; else it is the most that can go.
    """

    begin: dict[str, int]
    end: dict[str, int]
    zeros: int = 0
    reachable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What was asked for, checked.

    Attributes:
        method: How.
        goal: What to reach; None for 2:4, whose pattern says how much goes.
        importance: What ranks channels or weights.
        steps: How often is pruned and trained again.
        round_to: Widths are multiples of it.
        allotment: Whether all groups lose the same share, or are ranked together.
    """

    method: MethodName
    goal: Goal | None
    importance: Importance
    steps: int
    round_to: int
    allotment: Allotment

    @property
    def measured(self) -> bool:
        """Whether only files tell when the goal is reached."""
        return self.goal is not None and self.goal.quantity in {"size", "latency"}

    def check(self) -> None:
        """Refuse what cannot be had, with the reason.

        Raises:
            UsageError: It cannot.
        """
        if self.goal is None and self.method != "2:4":
            raise UsageError(f"--method {self.method} needs --until GOAL, such as params=0.5x")
        quantity = None if self.goal is None else self.goal.quantity
        if self.method not in CHANNELS and quantity in _USELESS:
            reason = _USELESS[quantity]
            if self.method == "2:4" and quantity != "size":
                reason = (
                    "only TensorRT's sparse kernels on GPUs since Ampere gain from it, and no "
                    "engine is built with them here"
                )
            raise UsageError(
                f"--until {self.goal and self.goal.text} with --method {self.method}: {reason}; "
                "use --method structured, or --until params=..."
            )
        if self.method == "soft" and self.importance != "magnitude":
            raise UsageError("--method soft ranks filters by their norm; leave --importance out")
        if self.steps > 1 and self.method in {"soft", "2:4"}:
            raise UsageError(f"--method {self.method} prunes in one step; leave --steps out")


@dataclass(frozen=True, slots=True, kw_only=True)
class Planner:
    """Finds out how much must go.

    Attributes:
        module: The whole model, on the CPU.
        size: (C, H, W) of its input.
        chosen: What was asked for.
        batches: A few, for the importance.
        found: The groups of channels; None where single weights go.
        progress: Shows what is tried.
        shipping: Exports, for goals on files; None plans without them.
        original: The whole model as a file; likewise.
    """

    module: nn.Module
    size: tuple[int, int, int]
    chosen: Chosen
    batches: Callable[[], Batches]
    found: Found | None
    progress: Progress
    shipping: Shipping | None = None
    original: Shipped | None = None

    def __call__(self) -> Decided:
        """Return what goes.

        Raises:
            UsageError: The goal is reached already.
        """
        return self._weights() if self.found is None else self._channels(self.found)

    def method(self, decided: Decided, epochs: int) -> Method:
        """Return the method with the amount, for so many epochs after each step."""
        name, importance = self.chosen.method, self.chosen.importance
        if name == "structured":
            return Structured(
                size=self.size, begin=decided.begin, end=decided.end,
                multiple=self.chosen.round_to, importance=importance,
            )  # fmt: skip
        if name == "soft":
            return Soft(size=self.size, end=decided.end, epochs=epochs)
        return Sparse(pattern=name, count=decided.zeros, importance=importance)

    def _weights(self) -> Decided:
        goal = self.chosen.goal
        if goal is None or self.chosen.method == "2:4":
            return Decided(begin={}, end={})
        every = sum(value.numel() for value in self.module.parameters())
        limit = goal.limit(nonzero(self.module))
        self._check_goal(nonzero(self.module), limit)
        most = int(_MOST_ZEROS * sum(value.numel() for value in weights_of(self.module).values()))
        wanted = math.ceil(every - limit)
        return Decided(begin={}, end={}, zeros=min(wanted, most), reachable=wanted <= most)

    def _channels(self, found: Found) -> Decided:
        goal, chosen = self.chosen.goal, self.chosen
        assert goal is not None
        for layer, reason in list(found.skipped.items())[:_LISTED]:
            self.progress.note(f"the channels of {layer} stay: {reason}")
        if len(found.skipped) > _LISTED:
            self.progress.note(f"so do those of {len(found.skipped) - _LISTED} other groups")
        groups = found.groups
        scores = channel_scores(self.module, groups, chosen.importance, self.batches)
        ranks = scores if chosen.allotment == "ranked" else None
        limit = self._limit(goal)
        costs: dict[tuple[int, ...], float] = {}

        def cost(kept: Kept) -> float:
            key = tuple(kept.values())
            if key not in costs:
                narrow = copy.deepcopy(self.module)
                remove(narrow, groups, weakest(groups, scores, kept))
                costs[key] = self._cost(goal, narrow)
            return costs[key]

        begin = {group.name: group.width for group in groups}
        if goal.quantity != "latency":
            self._check_goal(cost(begin), limit)

        def at(share: float) -> Kept:
            return allot(groups, share, chosen.round_to, ranks)

        rounds = _MEASURED_ROUNDS if chosen.measured else _COUNTED_ROUNDS
        end, reachable = smallest_cut(at, lambda kept: cost(kept) <= limit, rounds)
        if end == begin:
            raise UsageError(
                f"no channels can go: every width is {chosen.round_to} or less; lower --round-to"
            )
        return Decided(begin=begin, end=end, reachable=reachable)

    def _limit(self, goal: Goal) -> float:
        if goal.quantity == "latency":
            return _AIM * goal.limit(1.0)
        if goal.quantity == "size":
            assert self.original is not None
            return goal.limit(self.original.size_bytes)
        counted = cost_of(self.module, self.size)
        return goal.limit(counted.parameters if goal.quantity == "params" else counted.macs)

    def _cost(self, goal: Goal, narrow: nn.Module) -> float:
        if goal.quantity in {"params", "macs"}:
            counted = cost_of(narrow, self.size)
            return counted.parameters if goal.quantity == "params" else counted.macs
        assert self.shipping is not None
        self.progress.step("export a narrower model to measure it")
        shipped = self.shipping(narrow.eval())
        if goal.quantity == "size":
            return shipped.size_bytes
        assert self.original is not None
        assert shipped.backend is not None
        assert self.original.backend is not None
        pixels = self.shipping.samples.pixels
        return time_ratio(shipped.backend, self.original.backend, pixels).high

    def _check_goal(self, current: float, limit: float) -> None:
        if current <= limit:
            goal = self.chosen.goal
            assert goal is not None
            raise UsageError(
                f"--until {goal.text} is reached already: {goal.quantity} is {current:,.0f}, the "
                f"goal {limit:,.0f}; give a smaller one"
            )


def smallest_cut(
    at: Callable[[float], Kept], fits: Callable[[Kept], bool], rounds: int
) -> tuple[Kept, bool]:
    """Return the widths of the smallest share that fits, found by halving; False: none does."""
    best = at(1.0)
    if not fits(best):
        return best, False
    low, high = 0.0, 1.0
    for _ in range(rounds):
        middle = (low + high) / 2
        kept = at(middle)
        if fits(kept):
            best, high = kept, middle
        else:
            low = middle
    return best, True


def cost_of(module: nn.Module, size: tuple[int, int, int]) -> Cost:
    """Return parameters and multiply-accumulates of a module on the CPU, which is left as it is.

    Raises:
        ModelError: It does not run on torch's meta device.
    """
    with torch.device("meta"):
        return model_cost(copy.deepcopy(module).to("meta"), size)
