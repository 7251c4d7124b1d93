"""Around every request: the API key, the security headers, the counts, and no fault shown."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import time
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .counts import PATHS, Counts
from .errors import RequestError, internal
from .settings import Settings

_LOG: Final = logging.getLogger("edgecls.serve")

# What needs no key: whether the server lives, the page, which asks for one, and its description.
_OPEN: Final = (
    "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/", "/openapi.json",
)  # fmt: skip
_OPEN_BELOW: Final = "/static/"

_DRAIN_S: Final = 1.0

_HEADERS: Final = {
    # Everything that the page uses comes from this server; a chosen image is a blob.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        "media-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class Guard:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp, *, settings: Settings, counts: Counts) -> None:
        self._app = app
        self._key = None if settings.api_key is None else settings.api_key.encode()
        self._drained_bytes = 2 * settings.max_upload_bytes
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through that has the key, and see that it gets an answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0  # of an answer that was begun
        body = _Body(receive, self._drained_bytes)

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if status >= 400 and (b"expect", b"100-continue") not in scope["headers"]:
                    await body.drain()
                headers = dict(message.get("headers", ()))
                added = {**_HEADERS, "cache-control": "no-store"}
                for name, value in added.items():
                    headers.setdefault(name.encode(), value.encode())
                message = {**message, "headers": list(headers.items())}
            await send(message)

        start = time.perf_counter()
        path = scope["path"]
        try:
            self._check_key(scope)
            await self._app(scope, body.receive, answer)
        except RequestError as error:
            await send_error(answer, path, error)
        except Exception:
            # A client learns that it was our fault; what it was stands in the log only.
            _LOG.exception("%s failed", path)
            if not status:
                await send_error(answer, path, internal())
        finally:
            self._counts.add_request(label_of(path), status)
            if path == "/v1/predict" and status == 200:
                self._counts.observe_seconds("predict_seconds", time.perf_counter() - start)

    def _check_key(self, scope: Scope) -> None:
        path = scope["path"]
        if self._key is None or path in _OPEN or path.startswith(_OPEN_BELOW):
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        sent = headers.get(b"x-api-key")
        if sent is None:
            scheme, _, sent = headers.get(b"authorization", b"").partition(b" ")
            if scheme.lower() != b"bearer":
                sent = b""
        # compare_digest takes as long for a wrong first letter as for a wrong last one.
        if not hmac.compare_digest(sent.strip(), self._key):
            raise RequestError(
                401, "unauthorized",
                "expected the API key: Authorization: Bearer KEY, or X-API-Key: KEY",
            )  # fmt: skip


class _Body:
    """A request's body, of which the rest can be thrown away.

    A refused client still sends: where the connection is closed meanwhile, its system tells it of a
    reset and forgets the answer. So what it sends is read for a while before it gets the answer.
    """

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive = receive
        self._left = most
        self._ended = False

    async def receive(self) -> Message:
        """Return the next part, as the server gives it."""
        message = await self._receive()
        self._ended = not message.get("more_body", False)
        return message

    async def drain(self) -> None:
        """Read what is left, if that is neither much nor long."""

        async def read() -> None:
            while not self._ended and self._left > 0:
                self._left -= len((await self.receive()).get("body", b""))

        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(read(), _DRAIN_S)


def label_of(path: str) -> str:
    """Return what a path counts as: one of few, whatever is asked for."""
    if path in PATHS:
        return path
    first = f"/{path.split('/')[1]}"
    return first if first in {"/static", "/v2"} else "other"


async def send_error(send: Send, path: str, error: RequestError) -> None:
    """Answer with an error in its JSON form."""
    headers: dict[str, Any] = {"content-type": "application/json", **error.headers}
    body = error.body(path)
    headers["content-length"] = str(len(body))
    await send(
        {
            "type": "http.response.start",
            "status": error.status,
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
    )
    await send({"type": "http.response.body", "body": body})
