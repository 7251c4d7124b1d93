"""Ratios of times by a clock that the test turns, and intervals against the binomial law."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from edgecls.workflows import speed
from edgecls.workflows.speed import median_interval, ratio_of, time_in_turn, time_ratio


class Clock:
    """Time passes only where something runs."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Runs:
    """A backend that takes what it is told, and more where the machine is busy."""

    def __init__(self, clock: Clock, seconds: float, draw: np.random.Generator) -> None:
        self.clock, self.seconds, self.draw = clock, seconds, draw

    def logits(self, pixels: np.ndarray) -> np.ndarray:
        busy = 10.0 if self.draw.random() < 0.1 else 1.0
        self.clock.now += self.seconds * busy
        return pixels


def test_the_ratio_is_that_of_the_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else the machine does in one run of ten."""
    clock, draw = Clock(), np.random.default_rng(0)
    monkeypatch.setattr(speed, "time", clock)
    one, other = Runs(clock, 0.003, draw), Runs(clock, 0.004, draw)

    found = time_ratio(one, other, np.zeros((2, 1, 1, 3), np.uint8))

    assert found.value == pytest.approx(0.75)
    assert (found.ms, found.other_ms) == pytest.approx((3.0, 4.0))
    assert found.low == pytest.approx(0.75)
    assert found.high == pytest.approx(0.75)


@pytest.mark.parametrize("count", [6, 7, 20, 99, 100, 301])
def test_the_interval_is_the_narrowest_that_holds(count: int) -> None:
    low, high = median_interval(list(range(count)))

    skipped = int(low)
    assert high == count - 1 - skipped
    assert 2 * binom.cdf(skipped, count, 0.5) <= 0.05
    assert 2 * binom.cdf(skipped + 1, count, 0.5) > 0.05


def test_few_values_give_all_that_was_seen() -> None:
    assert median_interval([3.0, 1.0, 2.0]) == (1.0, 3.0)


def test_several_files_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is as often first, and a machine that grows slower and slower changes no ratio much."""
    clock, draw = Clock(), np.random.default_rng(0)
    monkeypatch.setattr(speed, "time", clock)
    order: list[int] = []

    class Slower(Runs):
        def logits(self, pixels: np.ndarray) -> np.ndarray:
            order.append(int(self.seconds * 1000))
            self.clock.now += self.seconds * (1 + len(order) / 1000)
            return pixels

    files = [Slower(clock, seconds, draw) for seconds in (0.001, 0.002, 0.004)]
    times = time_in_turn(files, np.zeros((2, 1, 1, 3), np.uint8), 30)

    firsts = order[:: 3 * 8]
    assert [firsts.count(file) for file in (1, 2, 4)] == [10, 10, 10]
    assert [len(found) for found in times] == [30, 30, 30]
    assert ratio_of(times[0], times[2]).value == pytest.approx(0.25, rel=0.02)
    assert ratio_of(times[1], times[2]).value == pytest.approx(0.5, rel=0.02)
