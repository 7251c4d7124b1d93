"""What a pruning is to reach: ``params=0.5x``, ``macs=20M``, ``size=100kB``, ``latency=0.6x``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, cast, get_args

from ..core.errors import UsageError

Quantity = Literal["params", "macs", "size", "latency"]
_QUANTITIES: Final[tuple[str, ...]] = get_args(Quantity)

_COUNTS: Final = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}
_BYTES: Final = {"B": 1, "kB": 1e3, "MB": 1e6, "KiB": 2**10, "MiB": 2**20}
_NUMBER: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)([A-Za-z]*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A limit on one quantity.

    Attributes:
        quantity: Parameters, multiply-accumulates, bytes of the artefact that ships, or the
            measured time of one image.
        factor: The part of the original's that may remain; None where ``value`` says how much.
        value: Parameters, multiply-accumulates or bytes.
        text: As it was given.
    """

    quantity: Quantity
    factor: float | None
    value: float | None
    text: str

    def limit(self, original: float) -> float:
        """Return the most that is allowed, given what the original has."""
        return self.factor * original if self.factor is not None else cast(float, self.value)


def parse_goal(text: str) -> Goal:
    """Return what ``--until`` names.

    Raises:
        UsageError: It names nothing that can be reached.
    """
    name, separator, amount = text.partition("=")
    found = _NUMBER.fullmatch(amount)
    if not separator or name not in _QUANTITIES or found is None:
        raise UsageError(
            f"--until {text}: expected params, macs, size or latency with a part of the original's "
            "or an amount: params=0.5x, macs=20M, size=100kB, latency=0.6x"
        )
    quantity = cast("Quantity", name)
    number, unit = float(found[1]), found[2]
    if unit == "x":
        if not 0 < number < 1:
            raise UsageError(f"--until {text}: the part must lie between 0x and 1x")
        return Goal(quantity=quantity, factor=number, value=None, text=text)
    if quantity == "latency":
        raise UsageError(
            f"--until {text}: expected a part of the original's, such as latency=0.6x; both are "
            "measured on this machine in turn, whose milliseconds are not the device's"
        )
    units = _BYTES if quantity == "size" else _COUNTS
    if unit not in units or not number:
        raise UsageError(
            f"--until {text}: expected a unit of {', '.join(filter(None, units))} or x and more "
            f"than 0, found {amount}"
        )
    return Goal(quantity=quantity, factor=None, value=number * units[unit], text=text)
