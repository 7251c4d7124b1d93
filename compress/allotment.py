"""How many channels each group keeps, and which: a share of all, at widths that kernels like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias, get_args

import torch

from .channels import ChannelGroup
from .importance import Scores

Allotment = Literal["even", "ranked"]
ALLOTMENTS: tuple[Allotment, ...] = get_args(Allotment)

Kept: TypeAlias = "dict[str, int]"
"""By group: how many channels stay."""


def rounded_width(wanted: float, width: int, multiple: int) -> int:
    """Return the multiple nearest to ``wanted``; a width of a multiple or less stays.

    Odd widths leave parts of a vector register empty: a narrower layer is then no faster.
    """
    if width <= multiple:
        return width
    return min(width, max(multiple, multiple * int(wanted / multiple + 0.5)))


def allot(
    groups: Sequence[ChannelGroup], share: float, multiple: int, scores: Scores | None = None
) -> Kept:
    """Return how many channels stay where ``share`` of all go.

    Args:
        groups: What can be pruned.
        share: 0 takes nothing, 1 all but one multiple of each group.
        multiple: Of every width that changes.
        scores: Ranks the channels of all groups together; None takes the same share of each.
    """
    if scores is None:
        wanted = {group.name: (1 - share) * group.width for group in groups}
    else:
        every = torch.cat([scores[group.name] for group in groups])
        gone = torch.zeros(len(every), dtype=torch.bool)
        gone[torch.argsort(every, stable=True)[: round(share * len(every))]] = True
        parts = torch.split(gone, [group.width for group in groups])
        wanted = {
            group.name: group.width - int(part.sum())
            for group, part in zip(groups, parts, strict=True)
        }
    return {
        group.name: rounded_width(wanted[group.name], group.width, multiple) for group in groups
    }


def partly(begin: Mapping[str, int], end: Mapping[str, int], part: float, multiple: int) -> Kept:
    """Return the widths on the way from ``begin`` to ``end``: at ``part`` 1 exactly ``end``."""
    return {
        name: max(
            end[name],
            rounded_width(width - part * (width - end[name]), width, multiple),
        )
        if part < 1
        else end[name]
        for name, width in begin.items()
    }


def weakest(
    groups: Sequence[ChannelGroup], scores: Scores, kept: Mapping[str, int]
) -> dict[str, tuple[int, ...]]:
    """Return which channels go so that each group keeps as many as it may."""
    order = {group.name: torch.argsort(scores[group.name], stable=True) for group in groups}
    return {
        group.name: tuple(sorted(order[group.name][: group.width - kept[group.name]].tolist()))
        for group in groups
        if group.width > kept[group.name]
    }
