"""The ways to prune, as steps on a module: cut, hold while it learns, finish."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol, get_args

import torch
from torch import nn

from ..core.errors import ModelError
from .allotment import partly, weakest
from .channels import ChannelGroup, hush, remove
from .groups import broken, trace_groups
from .importance import Batches, Importance, channel_scores, loudness, weight_scores
from .sparsity import (
    Masks,
    apply_masks,
    keep_zeros,
    lowest_by_layer,
    lowest_overall,
    two_of_four,
)

MethodName = Literal["global", "layer", "structured", "soft", "2:4"]
METHODS: Final[tuple[MethodName, ...]] = get_args(MethodName)
CHANNELS: Final = ("structured", "soft")
"""The methods whose models are physically smaller."""

# Of the norms of silent filters: far below what other channels answer.
_SHIFT: Final = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What a training must do so that what was pruned stays so.

    Attributes:
        after_step: Called after each step, also with the epoch, from 0.
        after_epoch: Called after each epoch, before it is judged.
    """

    after_step: Callable[[nn.Module, int], None] | None = None
    after_epoch: Callable[[nn.Module], None] | None = None


class Method(Protocol):
    """A way to prune, whose amount is decided."""

    def cut(self, module: nn.Module, part: float, batches: Callable[[], Batches]) -> None:
        """Prune in place so that ``part`` (0..1) of the way to the goal is done."""

    def hooks(self, module: nn.Module) -> Hooks:
        """Return what keeps a cut module pruned while it learns."""

    def finish(self, module: nn.Module) -> None:
        """Take out of a module that has learned what is physically still there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Structured:
    """Takes channels out, a part of them at each step.

    Attributes:
        size: (C, H, W) of the input.
        begin: Widths before the first step.
        end: Widths after the last.
        multiple: Of the widths between.
        importance: What ranks the channels of a group, anew at each step.
    """

    size: tuple[int, int, int]
    begin: Mapping[str, int]
    end: Mapping[str, int]
    multiple: int
    importance: Importance = "magnitude"

    def cut(self, module: nn.Module, part: float, batches: Callable[[], Batches]) -> None:
        """See ``Method``."""
        groups = _groups(module, self.size, self.end)
        scores = channel_scores(module, groups, self.importance, batches)
        kept = partly(self.begin, self.end, part, self.multiple)
        _take(module, groups, weakest(groups, scores, kept), self.size)

    def hooks(self, module: nn.Module) -> Hooks:
        """See ``Method``."""
        del module
        return Hooks()

    def finish(self, module: nn.Module) -> None:
        """See ``Method``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Soft:
    """Silences the weakest filters after every epoch; what grows again first is kept instead.

    The filters that are silent in the end are taken out.

    Source: He et al. 2018, Soft Filter Pruning, arXiv:1808.06866. There the filter becomes zero and
    its batch norm stays, which divides by the filter's deviation, 0: one step makes it as loud as
    any other. Here the norm's scale becomes zero, through which it returns little by little;
    filters without a norm are as in the paper. The shift becomes nearly 0: not 0, where a ReLU
    lets no gradient through and nothing returns. And there all epochs are alike, 200 of them; here
    nothing returns in the second half, in which the filters that stay learn to do without.

    Attributes:
        size: (C, H, W) of the input.
        end: Widths after the training.
        epochs: Of the training, at least 2.
    """

    size: tuple[int, int, int]
    end: Mapping[str, int]
    epochs: int

    def cut(self, module: nn.Module, part: float, batches: Callable[[], Batches]) -> None:
        """See ``Method``."""
        del part, batches
        self._silence(module, _groups(module, self.size, self.end))

    def hooks(self, module: nn.Module) -> Hooks:
        """See ``Method``."""
        groups = _groups(module, self.size, self.end)

        def hold(learned: nn.Module, epoch: int) -> None:
            if epoch >= self.epochs // 2:
                self._silence(learned, groups)

        return Hooks(
            after_step=hold,
            after_epoch=lambda learned: self._silence(learned, groups),
        )

    def finish(self, module: nn.Module) -> None:
        """See ``Method``."""
        groups = _groups(module, self.size, self.end)
        _take(
            module,
            groups,
            {
                name: torch.nonzero(norm == 0).flatten().tolist()
                for name, norm in loudness(module, groups).items()
            },
            self.size,
        )

    def _silence(self, module: nn.Module, groups: Sequence[ChannelGroup]) -> None:
        hush(module, groups, weakest(groups, loudness(module, groups), self.end), _SHIFT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sparse:
    """Sets single weights to zero and keeps them there.

    Attributes:
        pattern: Ranked over all layers, the same share of each, or two of every four.
        count: How many are zero in the end; 2:4 decides it itself.
        importance: What ranks them, anew at each step.
    """

    pattern: Literal["global", "layer", "2:4"]
    count: int = 0
    importance: Importance = "magnitude"

    def cut(self, module: nn.Module, part: float, batches: Callable[[], Batches]) -> None:
        """See ``Method``."""
        scores = weight_scores(module, self.importance, batches)
        for name, score in scores.items():  # what is zero stays so, whatever it is worth
            score[module.get_parameter(name).detach().eq(0)] = -1.0
        # Many at first, few in the end: Zhu and Gupta 2017, arXiv:1710.01878.
        count = round(self.count * (1 - (1 - part) ** 3))
        masks: Masks
        if self.pattern == "2:4":
            masks = two_of_four(scores)
        else:
            masks = (lowest_overall if self.pattern == "global" else lowest_by_layer)(scores, count)
        apply_masks(module, masks)

    def hooks(self, module: nn.Module) -> Hooks:
        """See ``Method``."""
        return Hooks(after_step=keep_zeros(module))

    def finish(self, module: nn.Module) -> None:
        """See ``Method``."""


def _groups(
    module: nn.Module, size: tuple[int, int, int], proved: Mapping[str, int]
) -> tuple[ChannelGroup, ...]:
    """Return the groups as they are now, of those that were proved on the whole model."""
    found = trace_groups(module, size).groups
    return tuple(group for group in found if group.name in proved)


def _take(
    module: nn.Module, groups: Sequence[ChannelGroup], channels: Mapping[str, Sequence[int]],
    size: tuple[int, int, int],
) -> None:  # fmt: skip
    """Remove channels, all at once, where that is the same as silencing them."""
    problem = broken(module, groups, channels, size)
    if problem is not None:
        raise ModelError(f"pruning {', '.join(channels)} together: {problem}")
    remove(module, groups, channels)
