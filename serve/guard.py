"""Around every request: the API key, the security headers, the counts, and no fault shown."""

from __future__ import annotations

import functools
import hmac
import ipaddress
import logging
import time
from collections.abc import Mapping
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..core.errors import EdgeclsError
from .counts import PATHS, Counts
from .errors import RequestError, as_request_error, internal
from .settings import Settings

_LOG: Final = logging.getLogger("edgecls.serve")

# What needs no key: whether the server lives, the page, which asks for one, and its description.
_OPEN: Final = (
    "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/", "/openapi.json",
)  # fmt: skip
_OPEN_BELOW: Final = "/static/"
_READS: Final = ("GET", "HEAD", "OPTIONS")
_MAX_HOST: Final = 300  # no name or address is as long
_OWN_PAGE: Final = (b"same-origin", b"none")

_TEXTS: Final = {
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
    "cache-control": "no-store",
}
_HEADERS: Final = {name.encode(): value.encode() for name, value in _TEXTS.items()}


class Guard:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp, *, settings: Settings, counts: Counts) -> None:
        self._app = app
        self._key = None if settings.api_key is None else settings.api_key.encode()
        self._local_only = settings.local_only
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through that has the key, and see that it gets an answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0  # of an answer that was begun
        asks_first = False  # and was not told to send its body

        async def hear() -> Message:
            nonlocal asks_first
            asks_first = False
            return await receive()

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = {**_HEADERS, **dict(message.get("headers", ()))}
                if asks_first:  # what it sends next may be the body, or another request
                    headers[b"connection"] = b"close"
                message = {**message, "headers": list(headers.items())}
            await send(message)

        start = time.perf_counter()
        path = scope["path"]
        try:
            headers: dict[bytes, bytes] = dict(scope["headers"])
            asks_first = b"expect" in headers
            self._check_key(path, headers)
            self._check_sender(scope["method"], headers)
            await self._app(scope, hear, answer)
        except EdgeclsError as error:
            await send_error(answer, path, answer_to(error, path))
        except Exception:
            # A client learns that it was our fault; what it was stands in the log only.
            _LOG.exception("%s failed", label_of(path))
            if not status:
                await send_error(answer, path, internal())
        finally:
            self._counts.add_request(label_of(path), status)
            if path == "/v1/predict" and status == 200:
                self._counts.observe_seconds("predict_seconds", time.perf_counter() - start)

    def _check_key(self, path: str, headers: Mapping[bytes, bytes]) -> None:
        if self._key is None or path in _OPEN or path.startswith(_OPEN_BELOW):
            return
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

    def _check_sender(self, method: str, headers: Mapping[bytes, bytes]) -> None:
        """Refuse what another site's page lets a browser ask for, unless it has the key."""
        if self._key is not None:
            return
        if self._local_only and not _is_local(headers.get(b"host", b"")[:_MAX_HOST]):
            # A foreign name that was made to resolve to this machine (DNS rebinding).
            raise RequestError(
                403, "forbidden",
                "a server on loopback without an API key answers to localhost and IP addresses "
                "only; behind a proxy let it send such a Host, or set an API key",
            )  # fmt: skip
        # Browsers say it to https and to loopback, and no page can change it.
        if method not in _READS and headers.get(b"sec-fetch-site", b"none") not in _OWN_PAGE:
            raise RequestError(403, "forbidden", "another site's page may not send images here")


@functools.lru_cache(256)
def _is_local(header: bytes) -> bool:
    """Whether a Host header is localhost or an IP address, which no foreign name is."""
    host = header.decode("latin-1")
    name = host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name.lower() == "localhost"
    return True


def label_of(path: str) -> str:
    """Return what a path counts as: one of few, whatever is asked for, also "*" or "host:443"."""
    if path in PATHS:
        return path
    below = "/".join(path.split("/", 2)[:2])
    return below if below in {"/static", "/v2"} else "other"


def answer_to(error: EdgeclsError, path: str) -> RequestError:
    """Return what a client is told of an error; what it is not told stands in the log."""
    found = as_request_error(error)
    if found.status >= 500 and found.status != 503:
        _LOG.error("%s failed", label_of(path), exc_info=error)
    return found


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
