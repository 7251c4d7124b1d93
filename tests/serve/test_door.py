"""Connections go to the process that has the fewest, and to another where that one hangs."""

from __future__ import annotations

import asyncio
import copy
import errno
import socket
from collections.abc import Awaitable, Callable

import pytest

from edgecls.serve.counts import Counts
from edgecls.serve.door import Door


class Held(asyncio.Protocol):
    """A connection that stays."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._door.leave()


def _processes(number: int) -> list[Counts]:
    """Return each process' view of the same counts."""
    shared = Counts(number)
    found = [copy.copy(shared) for _ in range(number)]
    for row, counts in enumerate(found):
        counts.start(row)
    return found


class Port:
    """A listener that several processes share; here several doors of one."""

    def __init__(self, processes: int) -> None:
        self.counts = _processes(processes)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.doors: list[Door] = []
        self._clients: list[socket.socket] = []

    def open(self, row: int, most: int | None = None) -> Door:
        door = Door(self.listener.dup(), self.counts[row])
        if most is not None:
            door.most = most
        door.open(lambda: Held(door))
        self.doors.append(door)
        return door

    def connect(self, number: int) -> list[socket.socket]:
        made = [socket.create_connection(self.listener.getsockname()) for _ in range(number)]
        self._clients += made
        return made

    @property
    def inside(self) -> list[int]:
        return [door._inside for door in self.doors]

    def close(self) -> None:
        for each in [*self._clients, self.listener]:
            each.close()


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(3000):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to be")


def run(port: Port, body: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        try:
            await body()
        finally:
            port.close()
            for door in port.doors:
                await door.close()
            await asyncio.sleep(0)

    asyncio.run(whole())


def test_each_process_gets_its_share() -> None:
    shared = Port(3)

    async def body() -> None:
        for row in range(3):
            shared.open(row)
        shared.connect(30)
        await until(lambda: sum(shared.inside) == 30)
        assert shared.inside == [10, 10, 10]

    run(shared, body)


def test_a_place_that_is_left_is_taken_again() -> None:
    shared = Port(2)

    async def body() -> None:
        first = shared.open(0)
        early = shared.connect(4)
        await until(lambda: first._inside == 4)
        second = shared.open(1)
        shared.connect(4)
        await until(lambda: sum(shared.inside) == 8)
        assert shared.inside == [4, 4]
        for each in early:
            each.close()
        await until(lambda: first._inside == 0)
        shared.connect(4)
        await until(lambda: sum(shared.inside) == 8)
        assert shared.inside == [4, 4]
        assert second._inside == 4

    run(shared, body)


def test_a_process_that_hangs_gets_none() -> None:
    shared = Port(2)

    async def body() -> None:
        door = shared.open(0)
        shared.counts[1].put_connections(0)  # it said that it takes some, and never does
        shared.connect(40)
        await until(lambda: door._inside == 40)

    run(shared, body)


def test_a_process_that_is_not_there_is_not_waited_for() -> None:
    one, other = _processes(2)
    assert one.fewest_connections() == 0
    one.put_connections(3)
    assert other.fewest_connections() == 3
    other.put_connections(1)
    assert one.fewest_connections() == 1
    other.start(1)
    assert one.fewest_connections() == 3


def test_above_its_limit_it_says_so() -> None:
    shared = Port(1)

    async def body() -> None:
        door = shared.open(0, most=2)
        clients = shared.connect(3)
        await until(lambda: door._inside == 2)
        clients[2].setblocking(False)
        found = await asyncio.get_running_loop().sock_recv(clients[2], 100)
        assert found.startswith(b"HTTP/1.1 503 ")

    run(shared, body)


def test_what_was_taken_is_there_before_the_end() -> None:
    """Whoever ends the connections must see it: it would be kept alive until the time is over."""
    shared = Port(1)
    made = 0

    class Counted(Held):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            nonlocal made
            made += 1

    async def body() -> None:
        door = Door(shared.listener.dup(), shared.counts[0])
        door.open(lambda: Counted(door))
        shared.connect(1)
        door._look()
        await door.close()
        assert made == 1

    run(shared, body)


def test_a_connection_that_cannot_be_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = Port(1)

    async def body() -> None:
        door = shared.open(0)

        async def fails(*_: object) -> None:
            raise OSError(errno.ENOMEM, "no memory")

        with monkeypatch.context() as patch:
            patch.setattr(asyncio.get_running_loop(), "connect_accepted_socket", fails)
            (client,) = shared.connect(1)
            client.setblocking(False)
            assert await asyncio.get_running_loop().sock_recv(client, 1) == b""
        assert door._inside == 0
        shared.connect(1)
        await until(lambda: door._inside == 1)

    run(shared, body)
