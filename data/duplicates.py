"""Finds images that stand in a data set twice: the same bytes, or the same picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from .likeness import SAME

Across = Literal["splits", "classes", "none"]

# Of products that are held at once: 4 MiB.
_ROWS: Final = 1024


class Member(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of several images that are alike; its name begins with its split, where there are any."""

    name: str
    split: str
    label: str


class Duplicates(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Images that are alike.

    Attributes:
        across: "splits": what is judged was trained with; "classes": one of the labels is wrong;
            "none": counted more than once.
        images: Two or more, by name.
    """

    across: Across
    images: tuple[Member, ...]


def exact_duplicates(members: Sequence[Member], digests: Sequence[str]) -> tuple[Duplicates, ...]:
    """Return the groups of images with the same digest, those across splits first."""
    groups: dict[str, list[Member]] = {}
    for member, digest in zip(members, digests, strict=True):
        groups.setdefault(digest, []).append(member)
    return _sorted([_group(group) for group in groups.values() if len(group) > 1])


def near_duplicates(
    members: Sequence[Member], digests: Sequence[str], thumbnails: NDArray[np.float32]
) -> tuple[Duplicates, ...]:
    """Return the groups of images whose pictures are alike but whose digests differ.

    A group holds all that are linked by pairs of a correlation of ``likeness.SAME`` or more; of
    images with the same digest the first stands for all. The time grows with the square of the
    number of images, the memory does not.

    Args:
        members: The images, N.
        digests: Of their content, N.
        thumbnails: As ``likeness.thumbnail`` makes them, shape (N, 1024).
    """
    first: dict[str, int] = {}
    for place, digest in enumerate(digests):
        first.setdefault(digest, place)
    own = np.asarray(sorted(first.values()), np.int64)
    group = {int(place): int(place) for place in own}

    def root(place: int) -> int:
        while group[place] != place:
            group[place] = group[group[place]]
            place = group[place]
        return place

    for one, other in _alike(thumbnails[own]):
        group[root(int(own[other]))] = root(int(own[one]))
    linked: dict[int, list[Member]] = {}
    for place in own.tolist():
        linked.setdefault(root(place), []).append(members[place])
    return _sorted([_group(found) for found in linked.values() if len(found) > 1])


def _alike(thumbnails: NDArray[np.float32]) -> Iterator[tuple[int, int]]:
    """Yield the pairs (one, other), one < other, whose correlation is ``SAME`` or more."""
    for start in range(0, len(thumbnails), _ROWS):
        block = thumbnails[start : start + _ROWS]
        for below in range(start, len(thumbnails), _ROWS):
            products = block @ thumbnails[below : below + _ROWS].T
            rows, columns = np.nonzero(products >= SAME)
            for one, other in zip((rows + start).tolist(), (columns + below).tolist(), strict=True):
                if one < other:
                    yield one, other


def _group(members: Sequence[Member]) -> Duplicates:
    across: Across = "none"
    if len({member.split for member in members}) > 1:
        across = "splits"
    elif len({member.label for member in members}) > 1:
        across = "classes"
    return Duplicates(across=across, images=tuple(sorted(members, key=lambda member: member.name)))


def _sorted(groups: list[Duplicates]) -> tuple[Duplicates, ...]:
    order = ("splits", "classes", "none")
    return tuple(sorted(groups, key=lambda g: (order.index(g.across), g.images[0].name)))
