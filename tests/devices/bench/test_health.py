from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from edgecls.devices.bench.health import energy_j, ranges, reasons_against, watched
from edgecls.devices.bench.reading import Reading


def clocked(*mhz: float, unit: str = "cpu") -> list[Reading]:
    return [Reading(at_s=index, clocks_mhz={unit: value}) for index, value in enumerate(mhz)]


@pytest.mark.parametrize(
    ("readings", "gpu", "expected"),
    [
        (clocked(2400, 2400, 2300), False, ()),
        (clocked(2400, 1500, 2400), False, ("the clock fell: cpu from 2400 to 1500 MHz",)),
        # A governor may let a processor rest that waits for a GPU.
        (clocked(2400, 800), True, ()),
        (clocked(1980, 1200, unit="gpu"), True, ("the clock fell: gpu from 1980 to 1200 MHz",)),
        (clocked(1980, 300, unit="gpu"), False, ()),
        ([Reading(throttled={"a": False, "b": True}), Reading()], False, ("throttled: b",)),
        (
            [Reading(events={"throttled": 0}), Reading(events={"throttled": 1})],
            False,
            ("throttled meanwhile: throttled",),
        ),
        # Before the runs: since the start, but not now.
        ([Reading(events={"throttled": 1}), Reading(events={"throttled": 1})], False, ()),
        ([Reading(), Reading()], False, ()),
    ],
)
def test_reasons(readings: Sequence[Reading], gpu: bool, expected: tuple[str, ...]) -> None:
    assert reasons_against([readings], gpu=gpu) == expected
    assert reasons_against([[Reading(), Reading()], readings], gpu=gpu) == expected


def test_a_clock_that_is_lower_in_a_later_process_fell() -> None:
    found = reasons_against([clocked(2400, 2400), clocked(1800, 1800)], gpu=False)

    assert found == ("the clock fell: cpu from 2400 to 1800 MHz",)
    assert ranges([clocked(2400), clocked(1800)], "clocks_mhz") == {"cpu": (1800, 2400)}


def test_energy_is_what_was_counted_between_first_and_last() -> None:
    one = [Reading(at_s=t, energy_j={"package-0": e}) for t, e in ((0, 100.0), (1, 104), (2, 109))]
    other = [Reading(at_s=t, energy_j={"package-0": e}) for t, e in ((9, 200.0), (10, 205.0))]

    assert energy_j([one, other]) == {"package-0": 14.0}


def test_power_is_integrated() -> None:
    """4 W for a second, then rising to 8 W within two."""
    readings = [Reading(at_s=t, power_w={"board": w}) for t, w in ((5, 4.0), (6, 4.0), (8, 8.0))]

    assert energy_j([readings]) == {"board": 4.0 + 12.0}


def test_no_energy_of_a_moment() -> None:
    readings = [Reading(at_s=t, energy_j={"gpu": t}) for t in (0.0, 0.4)]

    assert energy_j([readings]) == {}


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({}, ()),
        ({"clocks_mhz": {"cpu": 1.0}}, ("clocks",)),
        ({"throttled": {"a": False}}, ("throttling",)),
        ({"events": {"a": 0}, "temperatures_c": {"a": 1.0}}, ("temperatures", "throttling")),
        ({"power_w": {"board": 0.0}}, ("energy",)),
    ],
)
def test_what_was_told(told: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert watched([[Reading(), Reading(**told)]]) == expected
