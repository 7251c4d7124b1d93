"""Connections over a real socket, with an application that only echoes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from edgecls.serve.connection import PromptConnection, prompt_connections

HOST = b"Host: localhost\r\n"


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the path, after all that was sent before had its time to arrive."""
    for _ in range(20):
        await asyncio.sleep(0)
    body = str(scope["path"]).encode()
    length = str(len(body)).encode()
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]}
    )
    await send({"type": "http.response.body", "body": body})


class Listening:
    """A server of one kind of connection, and those that are open."""

    def __init__(self, app: ASGIApp, timeout_s: float) -> None:
        self.lost = 0
        self.open: list[PromptConnection] = []
        self._config = uvicorn.Config(app, ws="none", log_config=None, access_log=False)
        self._kind = prompt_connections(timeout_s, self._on_lost)
        self._state = ServerState()

    def _on_lost(self) -> None:
        self.lost += 1

    def connect(self) -> PromptConnection:
        made = self._kind(config=self._config, server_state=self._state, app_state={})
        self.open.append(made)
        return made


def run(
    body: Callable[[Listening, int], Awaitable[None]], app: ASGIApp = echo, timeout_s: float = 10
) -> None:
    async def whole() -> None:
        listening = Listening(app, timeout_s)
        server = await asyncio.get_running_loop().create_server(listening.connect, "127.0.0.1", 0)
        try:
            await asyncio.wait_for(body(listening, server.sockets[0].getsockname()[1]), 30)
        finally:
            server.close()
            for each in listening.open:
                each.transport.abort()
            await asyncio.sleep(0.01)

    asyncio.run(whole())


async def answers(port: int, sent: bytes) -> list[bytes]:
    """Return the bodies of what is answered until the connection is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while data := await reader.read(65536):
            found += data
    writer.close()
    return [each.partition(b"\r\n\r\n")[2] for each in found.split(b"HTTP/1.1 ")[1:]]


def get(path: bytes, *headers: bytes) -> bytes:
    lines = [b"GET " + path + b" HTTP/1.1", b"Host: localhost", *headers, b"\r\n"]
    return b"\r\n".join(lines)


def test_requests_that_were_sent_ahead_are_answered_in_order() -> None:
    async def body(_: Listening, port: int) -> None:
        paths = [b"/%d" % number for number in range(50)]
        sent = b"".join(map(get, paths)) + get(b"/end", b"Connection: close")
        assert await answers(port, sent) == [*paths, b"/end"]

    run(body)


def test_too_many_requests_ahead_are_not_kept() -> None:
    """Each would take some kilobytes for its twenty bytes, a gigabyte in a second."""

    async def body(listening: Listening, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        most = 0
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            for _ in range(200):
                writer.write(get(b"/") * 1000)
                await asyncio.sleep(0)
                most = max(most, len(listening.open[0].pipeline))
            while await reader.read(65536):
                pass
        writer.close()
        assert 0 < most <= 64

    run(body)


def test_nothing_is_read_while_requests_wait() -> None:
    """Bodies that were sent ahead would be kept too, a part with each answer."""
    going = asyncio.Event()

    async def reads(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await going.wait()
        await echo(scope, receive, send)

    async def body(listening: Listening, port: int) -> None:
        long = b"POST /b HTTP/1.1\r\n" + HOST + b"Content-Length: 4000000\r\n\r\n"
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(get(b"/a") + get(b"/a") + long)
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(b"x" * 4_000_000)
        await asyncio.sleep(0.2)
        assert len(listening.open[0].cycle.body) <= 64 << 10
        going.set()
        await asyncio.sleep(0.2)
        assert listening.open[0].cycle.scope["path"] == "/b"
        assert not listening.open[0].pipeline  # it came to its turn
        writer.close()

    run(body, reads)


@pytest.mark.parametrize("wrong", [b"GET /b\n\n", b"\0", b"GET b HTTP/1.1\r\n" + HOST + b"\r\n"])
def test_what_is_no_request_does_not_answer_the_one_before(wrong: bytes) -> None:
    async def body(_: Listening, port: int) -> None:
        assert await answers(port, get(b"/a") + wrong) == [b"/a"]
        assert await answers(port, get(b"/a") * 3 + wrong) == [b"/a"] * 3
        assert await answers(port, wrong) == [b"Invalid HTTP request received."]

    run(body)


@pytest.mark.parametrize("upgrade", [
    get(b"/a", b"Connection: Upgrade", b"Upgrade: h2c"),
    b"PUT" + get(b"/a", b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Length: 1")[3:] + b"x",
    b"CONNECT /a HTTP/1.1\r\n" + HOST + b"\r\n",
], ids=["head", "body", "connect"])  # fmt: skip
def test_an_upgrade_is_not_made_and_ends_the_connection(upgrade: bytes) -> None:
    """What follows it is not parsed: on an open connection its answer would never come."""

    async def body(_: Listening, port: int) -> None:
        assert await asyncio.wait_for(answers(port, upgrade + get(b"/b")), 3) == [b"/a"]

    run(body)


def test_two_hosts_are_refused() -> None:
    async def body(_: Listening, port: int) -> None:
        asked = get(b"/a", b"Host: other.example")
        assert await answers(port, asked) == [b"Invalid HTTP request received."]

    run(body)


@pytest.mark.parametrize("size", [20_000, 60_000, 200_000])
def test_an_answer_that_nobody_takes_does_not_hold_its_connection(size: int) -> None:
    """Also one of which less is left than asyncio calls too much, on a closed connection."""

    async def long(scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        length = str(size).encode()
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]}
        )
        await send({"type": "http.response.body", "body": b"x" * size})

    async def body(listening: Listening, port: int) -> None:
        loop = asyncio.get_running_loop()
        with socket.socket() as asking:
            asking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            asking.setblocking(False)
            await loop.sock_connect(asking, ("127.0.0.1", port))
            while not (listening.open and listening.open[0].transport):
                await asyncio.sleep(0.01)
            made = listening.open[0].transport.get_extra_info("socket")
            made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            await loop.sock_sendall(asking, get(b"/", b"Connection: close"))
            for _ in range(200):
                await asyncio.sleep(0.01)
                if listening.lost:
                    break
            assert listening.lost == 1

    run(body, long, timeout_s=0.2)
