"""What some of the images gave: a value that merges with the others' and travels as JSON."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
import numpy as np

from ..core.errors import DataError
from .baseline import Kept
from .matrix import AgreementCounts
from .metrics import Comparison
from .report import Skipped


@dataclass(slots=True)
class Partial:
    """The counts of some images; merged in any order and grouping they give the same, bit for bit.

    Memory is bounded by the classes, not by the images, but for ``kept`` and ``skipped``.

    Attributes:
        images: How many were compared.
        comparison: With a reference or a baseline.
        agreement: Of every pair, where several sources are compared with each other.
        kept: The candidate's answers by image, where a baseline is made.
        skipped: Images that were not compared.
    """

    images: int = 0
    comparison: Comparison = field(default_factory=Comparison)
    agreement: AgreementCounts = field(default_factory=AgreementCounts)
    kept: dict[str, Kept] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)

    def merge(self, other: Partial) -> None:
        """Take all that ``other`` holds.

        Raises:
            DataError: They differ in their number of classes.
        """
        self.images += other.images
        self.comparison.merge(other.comparison)
        self.agreement.merge(other.agreement)
        self.kept.update(other.kept)
        self.skipped += other.skipped

    def to_json(self) -> bytes:
        """Return it as JSON; ``from_json`` gives back the same, to the last bit."""
        return msgspec.json.encode(_plain(self))

    @classmethod
    def from_json(cls, data: bytes) -> Partial:
        """Read what ``to_json`` wrote.

        Raises:
            DataError: It is not.
        """
        try:
            found = _restored(msgspec.json.decode(data), cls)
        except (msgspec.DecodeError, KeyError, TypeError, ValueError, IndexError) as error:
            raise DataError(f"not a partial result: {error}") from error
        assert isinstance(found, Partial)
        return found


def _plain(value: Any) -> Any:
    """Return counts as what JSON has; of an array the values that are not 0 and their places."""
    if dataclasses.is_dataclass(value):
        return {
            entry.name: _plain(getattr(value, entry.name)) for entry in dataclasses.fields(value)
        }
    if isinstance(value, np.ndarray):
        places = np.flatnonzero(value)
        return [value.shape, places.tolist(), value.ravel()[places].tolist()]
    if isinstance(value, dict):  # keys may be more than text
        return msgspec.to_builtins(list(value.items()))
    return msgspec.to_builtins(value)


def _restored(plain: Any, form: Any) -> Any:
    """Return what ``_plain`` was given, a value of the type ``form``."""
    if dataclasses.is_dataclass(form):
        assert isinstance(form, type)
        hints = get_type_hints(form)
        return form(**{name: _restored(plain[name], hint) for name, hint in hints.items()})
    origin = get_origin(form)
    if origin is np.ndarray:
        shape, places, values = plain
        found = np.zeros(shape, np.int64)
        found.reshape(-1)[places] = values
        return found
    if origin is dict:
        key, value = get_args(form)
        return dict(msgspec.convert(plain, list[tuple[key, value]]))  # type: ignore[valid-type]
    return msgspec.convert(plain, form)
