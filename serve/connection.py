"""Connections that say nothing, say or take it too slowly, or are too many, do not stay."""

from __future__ import annotations

import asyncio
import resource
from typing import ClassVar, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

_MAX_CONNECTIONS: Final = 1024
_FULL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\n"
    b"connection: close\r\n\r\n"
)


class PromptConnection(H11Protocol):
    """Closes a connection whose request's head does not arrive, or whose answer is not taken.

    uvicorn itself waits for both without end, and reads on without end where a request was refused
    before its body was read; the time of one that is read is ``read_body``'s to watch. Above
    ``most`` connections a further one is answered 503 unread: a process without a free descriptor
    could not even say so.
    """

    timeout_s: ClassVar[float]
    most: ClassVar[int]
    _timer: asyncio.TimerHandle | None = None
    _untaken: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give the first request its time."""
        super().connection_made(transport)
        if len(self.connections) > self.most:
            transport.write(_FULL)
            transport.close()
        else:
            self._watch()

    def data_received(self, data: bytes) -> None:
        """Give the next request its time from its first byte on."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        self._watch()

    def pause_writing(self) -> None:
        """Give the client its time to take what was sent."""
        super().pause_writing()
        self._untaken = self.loop.call_later(self.timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        """Let an answer go on."""
        super().resume_writing()
        if self._untaken is not None:
            self._untaken.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the times."""
        super().connection_lost(exc)
        for timer in (self._timer, self._untaken):
            if timer is not None:
                timer.cancel()

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        elif self._timer is None:
            self._timer = self.loop.call_later(self.timeout_s, self._late)

    def _late(self) -> None:
        self._timer = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


def prompt_connections(timeout_s: float, most: int) -> type[PromptConnection]:
    """Return the class of a server's connections."""
    return type("_Prompt", (PromptConnection,), {"timeout_s": timeout_s, "most": most})


def allow_connections() -> int:
    """Return how many connections this process can keep, as many descriptors as it may have.

    Four for each: as many again are accepted in one turn of asyncio's loop, before they are closed.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * _MAX_CONNECTIONS
    found = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < found:
        resource.setrlimit(resource.RLIMIT_NOFILE, (found, hard))
    return found // 4
