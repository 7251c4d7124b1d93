"""The interval against scipy, all orders counted, and how often it holds the truth."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from edgecls.core.errors import BadInputError, UsageError
from edgecls.devices.bench.compare import compare, interval_rank, ratio_interval, u_counts
from edgecls.devices.bench.process import ColdStart, Memory, Process
from edgecls.devices.bench.result import BenchResult, Times
from edgecls.devices.doctor import Finding


@pytest.mark.parametrize(("m", "n"), [(1, 1), (2, 3), (4, 4), (5, 3), (1, 6)])
def test_every_order_is_counted(m: int, n: int) -> None:
    counted = Counter(
        sum(place > other for place in places for other in set(range(m + n)) - set(places))
        for places in itertools.combinations(range(m + n), n)
    )

    assert u_counts(m, n) == [counted[u] for u in range(m * n + 1)]


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([0.01, 0.05, 0.1, 0.5]))
def test_the_interval_holds_what_the_exact_test_does_not_reject(
    m: int, n: int, alpha: float
) -> None:
    """A ratio just inside the interval is accepted by scipy's test, one just outside is not."""
    random = np.random.default_rng(m * 10 + n)
    first, second = random.lognormal(0, 1, m), random.lognormal(0.5, 1, n)
    found = ratio_interval(first, second, alpha)

    def p(ratio: float) -> float:
        result = stats.mannwhitneyu(second, first * ratio, method="exact")
        return float(result.pvalue)

    if found.low is None or found.high is None:
        assert p(1e-9) > alpha
    else:
        assert p(found.low * (1 + 1e-9)) > alpha
        assert p(found.low * (1 - 1e-9)) <= alpha
        assert p(found.high * (1 - 1e-9)) > alpha
        assert p(found.high * (1 + 1e-9)) <= alpha


def test_the_ranks_of_five_and_five() -> None:
    """Hollander and Wolfe's table: with 5 and 5, the third of the 25 from either end."""
    assert interval_rank(5, 5, 0.05) == 3
    assert interval_rank(3, 3, 0.05) == 0
    assert interval_rank(4, 4, 0.05) == 1


def serial(random: np.random.Generator, processes: int, runs: int) -> Any:
    """Log times: every process has a level of its own, and its runs hang together (AR(1))."""
    noise = random.normal(0, 0.05, (processes, runs))
    for run in range(1, runs):
        noise[:, run] += 0.9 * noise[:, run - 1]
    return random.normal(0, 0.05, (processes, 1)) + noise


def test_how_often_the_true_ratio_is_held_in_spite_of_serial_correlation() -> None:
    """1000 pairs of 5 processes: the binomial's 99.9 % range of 96.8 % is 94.7 .. 98.5 %."""
    random = np.random.default_rng(1)
    held = naive = 0
    for _ in range(1000):
        first, second = serial(random, 5, 60), np.log(1.03) + serial(random, 5, 60)
        found = ratio_interval(np.median(np.exp(first), 1), np.median(np.exp(second), 1), 0.05)
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 1.03 <= found.high
        # What treats each run as an observation of its own: Welch's interval of all of them.
        welch = stats.ttest_ind(second.ravel(), first.ravel(), equal_var=False)
        low, high = welch.confidence_interval(0.95)
        naive += low <= np.log(1.03) <= high

    assert 947 <= held <= 985
    assert naive < 600


MakeResult = Callable[..., BenchResult]


def made(*medians: float, **changes: Any) -> BenchResult:
    """A measurement of processes with these medians."""
    processes = tuple(
        Process(
            cold_start=ColdStart(python=1, imports=1, load=1, first=1),
            memory=Memory(python=1, imports=1, load=1, peak=1),
            runs_ms={"inference": [value / 2] * 3, "total": [0.1, value, 99.0]},
            stream_per_s=1.0, waiting=0.0, readings=(),
        )
        for value in medians
    )  # fmt: skip
    found = BenchResult(
        edgecls="1", bundle_sha256="ab", target="raspberry-pi", artefact="a.tflite",
        precision="int8", backend="litert", description={"library": "x 1"}, fell_back=None,
        problem=None, threads=1, batch=1, runs=3, warmup=0, images=1, images_sha256="cd",
        stages={name: Times.of([1.0]) for name in ("inference", "total")}, per_s=1.0,
        cold_start=processes[0].cold_start, memory=processes[0].memory, clocks_mhz={},
        temperatures_c={}, energy_j={}, watched=(), waiting=0.0, emulated=False, invalid=(),
        machine=(), processes=processes,
    )  # fmt: skip
    return msgspec.structs.replace(found, **changes)


BEFORE = made(10.0, 10.1, 10.2, 10.3, 10.4)


@pytest.mark.parametrize(
    ("second", "outcome", "code"),
    [
        (made(10.05, 10.15, 10.25, 10.35, 10.45), "passed", 0),
        (made(12.0, 12.1, 12.2, 12.3, 12.4), "failed", 1),
        (made(10.6, 10.7, 10.8, 10.4, 10.3), "undecided", 5),
        (made(8.0, 8.1, 8.0, 8.2, 8.1), "passed", 0),
        (made(99.0, 98.0, 97.0), "failed", 1),
        (made(99.0), "undecided", 5),
    ],
)
def test_the_outcome(second: BenchResult, outcome: str, code: int) -> None:
    found = compare(BEFORE, second, max_loss=5)

    assert (found.outcome, found.exit_code) == (outcome, code)
    assert found.differences == ()


def test_another_stage_and_a_larger_loss() -> None:
    slower = made(12.0, 12.1, 12.2, 12.3, 12.4)

    assert compare(BEFORE, slower, max_loss=25).outcome == "passed"
    assert compare(BEFORE, slower, stage="inference").stage == "inference"
    with pytest.raises(UsageError, match="no stage 'decode'; there are: inference, total"):
        compare(BEFORE, slower, stage="decode")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bundle_sha256": "ef"}, "of one bundle, found ab and ef"),
        ({"precision": "fp32"}, "of one precision, found int8 and fp32"),
        ({"artefact": "b"}, "of one file of the bundle"),
        ({"batch": 2}, "of one batch, found 1 and 2"),
        ({"images_sha256": "ef"}, "of one images"),
        ({"invalid": ("throttled: x",)}, "the second is invalid: throttled: x"),
        ({"emulated": True}, "the second is emulated"),
    ],
)
def test_what_cannot_be_compared(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        compare(BEFORE, made(10.0, **changes))


@pytest.mark.parametrize("limits", [{"max_loss": -1}, {"confidence": 100}, {"confidence": 5},
                                    {"max_loss": float("nan")}])  # fmt: skip
def test_limits_out_of_range(limits: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="expected a"):
        compare(BEFORE, BEFORE, **limits)


def test_a_busy_machine_decides_nothing() -> None:
    busy = msgspec.structs.replace(BEFORE, waiting=0.06)

    assert compare(BEFORE, BEFORE).outcome == "passed"
    assert compare(BEFORE, msgspec.structs.replace(BEFORE, waiting=0.04)).outcome == "passed"
    found = compare(busy, made(20.0, 20.1, 20.2, 20.3, 20.4))
    assert (found.outcome, found.ratio.low is not None) == ("undecided", True)
    assert found.doubts == ("the first was measured on a busy machine",)


def test_other_machines_are_said() -> None:
    def machine(model: str) -> tuple[Finding, ...]:
        return (Finding(name="machine", state="info", detail=model),
                Finding(name="export", state="info", detail=model))  # fmt: skip

    one = msgspec.structs.replace(BEFORE, machine=machine("Raspberry Pi 4"))
    other = made(10.0, machine=machine("Raspberry Pi 5"), threads=None, waiting=0.5,
                 description={"library": "x 2"})  # fmt: skip
    found = compare(one, other)

    assert found.differences == (
        "machine: Raspberry Pi 4 / Raspberry Pi 5",
        "threads: 1 / the runtime's choice",
        "backend's library: x 1 / x 2",
    )
    assert found.doubts == ("the second was measured on a busy machine",)
