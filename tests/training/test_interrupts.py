"""Signals are noted, not raised; a second Ctrl-C is."""

from __future__ import annotations

import signal
import threading

import pytest

from edgecls.training import interrupts
from edgecls.training.interrupts import deferred_interrupts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted(number: signal.Signals) -> None:
    before = signal.getsignal(number)

    with deferred_interrupts() as interrupt:
        assert not interrupt.requested
        signal.raise_signal(number)
        signal.raise_signal(number)  # torchrun's copy of the same

        assert interrupt.requested
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(interrupts.time, "monotonic", lambda: now[0])

    with deferred_interrupts():
        signal.raise_signal(signal.SIGINT)
        now[0] += 5
        signal.raise_signal(signal.SIGTERM)  # asks for what is asked for already
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_other_threads_leave_signals_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[object] = []

    def work() -> None:
        with deferred_interrupts():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert seen == [before]
