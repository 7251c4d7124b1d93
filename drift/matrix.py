"""How often each pair of models or devices gives the same answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np

from ..core.errors import DataError
from ..core.text import as_utf8
from .answers import Indices
from .proportion import wilson
from .report import Skipped

SCHEMA_VERSION: Final = 1


class Pair(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Two of the sources, by their place.

    Attributes:
        first: From 0.
        second: Larger than ``first``.
        agreed: Images with the same top-1 answer.
        agreement: These, in percent.
        lower: Of Wilson's two-sided 95 % interval, percent.
        upper: Likewise.
    """

    first: int
    second: int
    agreed: int
    agreement: float
    lower: float
    upper: float


class Matrix(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the comparison of several sources found.

    Attributes:
        sources: As the user named them.
        backends: What ran each.
        images: How many were compared.
        pairs: Each pair's agreement.
        skipped: Images that not all could take.
    """

    sources: tuple[str, ...]
    backends: tuple[str, ...]
    images: int
    pairs: tuple[Pair, ...]
    skipped: tuple[Skipped, ...]
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> bytes:
        """Return it as JSON, indented, ending with a newline; the same every time."""
        named = msgspec.structs.replace(self, sources=tuple(map(as_utf8, self.sources)))
        return msgspec.json.format(msgspec.json.encode(named), indent=2) + b"\n"


@dataclass(slots=True)
class AgreementCounts:
    """Takes batches of answers; the result depends neither on their order nor on their size."""

    _images: int = 0
    _agreed: Indices = field(default_factory=lambda: np.zeros((0, 0), np.int64))

    @property
    def images(self) -> int:
        """How many were taken."""
        return self._images

    def add(self, answers: Sequence[Indices]) -> None:
        """Take one batch: for each source its top-1 classes, shape (N,)."""
        table = np.stack(answers)
        same = (table[:, None] == table[None]).sum(2)
        self._agreed = same if not self._images else self._agreed + same
        self._images += table.shape[1]

    def merge(self, other: AgreementCounts) -> None:
        """Take all that ``other`` has taken."""
        if other._images:
            self._agreed = other._agreed if not self._images else self._agreed + other._agreed
            self._images += other._images

    def result(self) -> tuple[Pair, ...]:
        """Return every pair.

        Raises:
            DataError: No image was taken.
        """
        if not self._images:
            raise DataError("no image could be compared")
        pairs = []
        for first in range(len(self._agreed)):
            for second in range(first + 1, len(self._agreed)):
                agreed = int(self._agreed[first, second])
                lower, upper = wilson(agreed, self._images)
                pairs.append(
                    Pair(first=first, second=second, agreed=agreed,
                         agreement=100 * agreed / self._images, lower=100 * lower,
                         upper=100 * upper)
                )  # fmt: skip
        return tuple(pairs)
