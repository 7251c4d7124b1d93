"""Connections that say nothing, say or take it too slowly, or too much of it, do not stay."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sized
from typing import ClassVar, Final

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

# Of a request, but for its body. The parser reports neither a line nor a header before it is whole,
# and keeps it meanwhile.
_MAX_HEAD: Final = 64 << 10
_MAX_READ: Final = 256 << 10  # what asyncio hands over at once; it may hold several requests
# Requests sent ahead of the answers before them; each takes a hundred times what its sender needs.
_MAX_AHEAD: Final = 64


class PromptConnection(HttpToolsProtocol):
    """Closes a connection whose request's head does not arrive, or whose answer is not taken.

    uvicorn itself waits for both without end, and reads on without end where a request was refused
    before its body was read; the time of one that is read is ``read_body``'s to watch. Nor does it
    limit how long a head may be, or how many requests may be sent ahead.

    Where what follows a request cannot be served on its connection, what came before is answered
    in order, and the connection closed then: an error at once would be taken for the answer to a
    request before, and a request that was lost leaves its answer to the next.
    """

    timeout_s: ClassVar[float]
    on_lost: ClassVar[Callable[[], None]]
    _timer: asyncio.TimerHandle | None = None
    _untaken: asyncio.TimerHandle | None = None
    _head = 0
    _deaf = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give the first request its time."""
        super().connection_made(transport)
        self.flow = _OneRead(transport, self.pipeline)
        # Whatever is left to send is watched, also on a connection that is being closed.
        transport.set_write_buffer_limits(high=0)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Give the next request its time from its first byte on."""
        if self.transport.is_closing() or self._deaf:
            return
        self._head += len(data)
        super().data_received(data)
        if self._head > _MAX_HEAD + _MAX_READ:
            self.transport.abort()
        self._watch()

    def on_headers_complete(self) -> None:
        """Begin to answer a request, or let it wait for those before it."""
        if len(self.pipeline) >= _MAX_AHEAD:
            raise ValueError("too many requests were sent ahead")
        if sum(name == b"host" for name, _ in self.headers) > 1:
            raise ValueError("more than one Host")  # which one would be up to who reads it
        super().on_headers_complete()
        if self.parser.should_upgrade():
            self.cycle.keep_alive = False  # no upgrade is made, and what follows is not parsed

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, unless a request before it waits for its own answer."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete or self._is_read(cycle):
            super().send_400_response(msg)
        else:
            cycle.keep_alive = False
            self._deaf = True

    def _is_read(self, cycle: RequestResponseCycle) -> bool:
        """Whether a request is the only one, its body still arrives, and nothing was answered."""
        return cycle.more_body and not cycle.response_started and not self.pipeline

    def on_body(self, body: bytes) -> None:
        """Take a part of a body, which has a limit of its own."""
        self._head -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Begin to count afresh."""
        self._head = 0
        super().on_message_complete()

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
        type(self).on_lost()

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


class _OneRead(FlowControl):
    """Reads no further while requests wait that were sent ahead, whoever else wants it to."""

    def __init__(self, transport: asyncio.Transport, ahead: Sized) -> None:
        super().__init__(transport)
        self._ahead = ahead

    def resume_reading(self) -> None:
        """Read on, if none waits."""
        if not self._ahead:
            super().resume_reading()


def prompt_connections(timeout_s: float, on_lost: Callable[[], None]) -> type[PromptConnection]:
    """Return the class of a server's connections; ``on_lost`` is told of each that ends."""
    members = {"timeout_s": timeout_s, "on_lost": staticmethod(on_lost)}
    return type("_Prompt", (PromptConnection,), members)
