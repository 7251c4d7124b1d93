"""What a candidate's outputs are called, in the reference's terms."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np

from ...data.labels import Labels
from ...drift.answers import Indices
from .chain import UNKNOWN


def meaning(expected: Labels, found: Labels) -> Indices:
    """Return, by output of the candidate, the reference's output of the same name.

    Names are compared without regard to case, spaces, hyphens and underscores; synsets where both
    have them. A name that the reference gives twice says nothing unless it stands in its place.

    Returns:
        Shape (classes,); ``UNKNOWN`` where the reference has no such name.
    """
    if expected.synsets is not None and found.synsets is not None:
        ours, theirs = list(expected.synsets), list(found.synsets)
    else:
        ours, theirs = _plain(expected), _plain(found)
    counts = Counter(ours)
    places = {name: place for place, name in enumerate(ours) if counts[name] == 1}
    return np.asarray(
        [
            place if place < len(ours) and ours[place] == name else places.get(name, UNKNOWN)
            for place, name in enumerate(theirs)
        ],
        np.int64,
    )


def described(expected: Labels, found: Labels, meant: Indices) -> tuple[str, str]:
    """Return where two label maps differ, for humans: what was expected and found."""
    other = np.flatnonzero(meant != np.arange(len(meant)))
    first = int(other[0])
    return (
        f"output {first} is {expected.names[first]!r}",
        f"{found.names[first]!r}; {len(other)} of {len(meant)} outputs have another name",
    )


def _plain(labels: Labels) -> list[str]:
    return [re.sub(r"[\s_-]+", " ", name).strip().casefold() for name in labels.names]
