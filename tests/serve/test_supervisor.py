"""What a signal makes the supervisor do; its processes are none here."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from edgecls.serve import supervisor as processes
from edgecls.serve.settings import Settings
from edgecls.serve.supervisor import Supervisor


class Process:
    """A process that ends when a test says so."""

    pid = 0
    exitcode: int | None = None

    def is_alive(self) -> bool:
        return self.exitcode is None

    def join(self) -> None:
        pass


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> list[Process]:
    made: list[Process] = []

    def fork(*_: Any) -> Process:
        made.append(Process())
        made[-1].pid = len(made)
        return made[-1]

    monkeypatch.setattr(processes, "_fork", fork)
    return made


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Which processes were told to open the bundle afresh."""
    found: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: found.append(pid))
    return found


@pytest.fixture
def supervisor(forked: list[Process]) -> Iterator[Supervisor]:
    with socket.socket() as listener:
        made = Supervisor(lambda: None, Settings(), listener, 2, lambda: None)  # type: ignore[arg-type, return-value]
        made._start(0)
        made._start(1)
        yield made
        for end in (made._ready_in, made._ready_out, made._alive_in, made._alive_out):
            os.close(end)


HUP = bytes([signal.SIGHUP])


def test_a_sighup_while_a_bundle_is_checked_is_not_lost(
    supervisor: Supervisor, forked: list[Process], told: list[int]
) -> None:
    supervisor._readied(0)
    supervisor._readied(1)
    supervisor._signals(HUP)
    supervisor._signals(HUP)
    supervisor._signals(HUP)
    assert len(forked) == 3

    forked[2].exitcode = 4  # of a bundle that is not there any more
    supervisor._judge()
    assert len(forked) == 4
    assert told == []

    forked[3].exitcode = 0
    supervisor._judge()
    assert told == [1, 2]
    assert len(forked) == 4


def test_a_worker_that_starts_meanwhile_is_told_when_it_is_ready(
    supervisor: Supervisor, forked: list[Process], told: list[int]
) -> None:
    supervisor._readied(0)
    supervisor._signals(HUP)
    forked[2].exitcode = 0
    supervisor._judge()
    assert told == [1]

    supervisor._readied(1)
    supervisor._readied(1)
    assert told == [1, 2]


def test_a_worker_that_ended_since_it_was_ready_is_none(
    supervisor: Supervisor, forked: list[Process]
) -> None:
    supervisor._stopping = True
    forked[0].exitcode = 0
    supervisor._bury()

    supervisor._readied(0)

    assert list(supervisor._workers) == [1]
