"""Takes connections, evenly among the processes that share a port."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import select
import socket
from collections.abc import Callable
from typing import Final

from .counts import Counts

_MAX_CONNECTIONS: Final = 1024
_PAUSE_S: Final = 0.001
_PATIENCE_S: Final = 0.01  # of a process with more connections, until the others seem to hang
_NO_DESCRIPTOR_S: Final = 1.0
_FULL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\n"
    b"connection: close\r\n\r\n"
)


class Door:
    """Accepts one connection at a time, and leaves it to another process that has fewer.

    The kernel wakes every process that waits on a port, and asyncio's own server then takes all
    that wait: the first process to wake has them all, for as long as they are kept alive, while
    another idles. Here a process with more connections than another waits a moment first; what
    nobody took until then it takes.

    Above ``most`` connections a further one is answered 503 unread: a process without a free
    descriptor could not even say so.
    """

    def __init__(self, listener: socket.socket, counts: Counts) -> None:
        self.most = _allow_connections()
        self._listener = listener
        self._counts = counts
        self._inside = 0
        self._waiting: asyncio.TimerHandle | None = None
        self._until: float | None = None
        self._entering: set[asyncio.Task[object]] = set()

    def open(self, protocol: Callable[[], asyncio.Protocol]) -> None:
        """Take connections from here on, each with a protocol of its own."""
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._listener.setblocking(False)
        self._count(0)
        self._watch()

    async def close(self) -> None:
        """Take no more; those that were taken have their protocol then."""
        self._loop.remove_reader(self._listener)
        if self._waiting is not None:
            self._waiting.cancel()
        self._listener.close()
        if self._entering:
            await asyncio.wait(self._entering)

    def leave(self) -> None:
        """Take note that a connection ended."""
        self._count(-1)

    def _watch(self) -> None:
        self._loop.add_reader(self._listener, self._look)

    def _look(self) -> None:
        """Take the connection that waits, or leave it to others for a while."""
        if self._inside <= self._counts.fewest_connections():
            self._until = None
        elif self._until is None:
            self._until = self._loop.time() + _PATIENCE_S
        if self._until is None or self._loop.time() >= self._until:
            self._accept()
        else:
            self._pause(_PAUSE_S, self._look_again)

    def _look_again(self) -> None:
        waiting = select.poll()
        waiting.register(self._listener, select.POLLIN)
        if not waiting.poll(0):
            self._until = None
        self._watch()

    def _pause(self, seconds: float, then: Callable[[], None]) -> None:
        self._loop.remove_reader(self._listener)
        self._waiting = self._loop.call_later(seconds, then)

    def _accept(self) -> None:
        try:
            found, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError:  # no descriptor or memory is left: those that wait are not lost
            self._pause(_NO_DESCRIPTOR_S, self._watch)
            return
        if self._inside >= self.most:
            with found, contextlib.suppress(OSError):
                found.setblocking(False)
                found.send(_FULL)
            return
        self._count(1)
        task: asyncio.Task[object] = self._loop.create_task(self._enter(found))
        self._entering.add(task)
        task.add_done_callback(self._entering.discard)

    async def _enter(self, found: socket.socket) -> None:
        try:
            found.setblocking(False)
            await self._loop.connect_accepted_socket(self._protocol, found)
        except OSError:  # no memory is left for it; no protocol will say that it ended
            found.close()
            self.leave()

    def _count(self, change: int) -> None:
        self._inside += change
        self._counts.put_connections(self._inside)


def _allow_connections() -> int:
    """Return how many connections this process can keep: half as many as it may have descriptors.

    The other half is the runtime's, and for what is open a moment.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * _MAX_CONNECTIONS
    found = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < found:
        resource.setrlimit(resource.RLIMIT_NOFILE, (found, hard))
    return found // 2
