"""What a board tells of itself at one moment."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import msgspec


class Reading(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was told; what was not is absent.

    Attributes:
        at_s: When, in seconds of the system's monotonic clock.
        clocks_mhz: By unit, "cpu", "arm" or "gpu": of its fastest core.
        temperatures_c: By the name that the board gives the place.
        throttled: What can slow the board down, and whether it does at this moment.
        events: How often something has slowed it down, since some time before.
        energy_j: By meter: used since some time before.
        power_w: By meter, where it tells power and no energy.
    """

    at_s: float = 0.0
    clocks_mhz: dict[str, float] = {}
    temperatures_c: dict[str, float] = {}
    throttled: dict[str, bool] = {}
    events: dict[str, int] = {}
    energy_j: dict[str, float] = {}
    power_w: dict[str, float] = {}

    @property
    def tells(self) -> bool:
        """Whether there is anything in it."""
        return msgspec.structs.replace(self, at_s=0.0) != Reading()


class Sensor(Protocol):
    """A source of readings; what it cannot read is absent from them, never an error."""

    def read(self) -> Reading:
        """Return what it tells now, without the time."""
        ...


def read_all(sensors: Iterable[Sensor], at_s: float) -> Reading:
    """Return what all sensors tell now as one reading."""
    found = [sensor.read() for sensor in sensors]

    def joined(name: str) -> dict[str, float]:
        return {key: value for one in found for key, value in getattr(one, name).items()}

    return Reading(
        at_s=at_s,
        clocks_mhz=joined("clocks_mhz"),
        temperatures_c=joined("temperatures_c"),
        throttled={key: value for one in found for key, value in one.throttled.items()},
        events={key: value for one in found for key, value in one.events.items()},
        energy_j=joined("energy_j"),
        power_w=joined("power_w"),
    )
