"""Asking a server: its key, its time, its size, and nobody else."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from edgecls.core.errors import BadInputError, DeviceError, UsageError
from edgecls.workflows.fetch import fetch, is_url

KEY = "0123456789abcdef"


@contextlib.contextmanager
def server(
    body: bytes = b"{}", *, status: int = 200, location: str = "", drip_s: float = 0
) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """Answer every GET alike; yields the address, and what was asked with which key."""
    asked: list[tuple[str, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers.get("authorization")))
            self.send_response(status)
            if location:
                self.send_header("location", location)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(OSError):
                for at in range(len(body)) if drip_s else [None]:
                    self.wfile.write(body if at is None else body[at : at + 1])
                    self.wfile.flush()
                    time.sleep(drip_s)

        def log_message(self, *_: object) -> None:
            pass

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{made.server_port}", asked
    finally:
        made.shutdown()
        thread.join()
        made.server_close()


def get(url: str, *, most_bytes: int = 1000, timeout_s: float = 10) -> bytes:
    return fetch(url, path="/v1/field", most_bytes=most_bytes, timeout_s=timeout_s)


def test_an_address_without_a_path_gets_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nobody is there
    monkeypatch.setenv("EDGECLS_API_KEY", KEY)
    with server(b"all of it") as (url, asked):
        assert get(url) == get(url + "/") == get(url + "/edge/v1/field") == b"all of it"
    key = f"Bearer {KEY}"
    assert asked == [("/v1/field", key), ("/v1/field", key), ("/edge/v1/field", key)]


def test_without_a_key_none_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGECLS_API_KEY", raising=False)
    with server() as (url, asked):
        get(url)
    assert asked == [("/v1/field", None)]


def test_nobody_else_gets_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGECLS_API_KEY", KEY)
    with (
        server() as (elsewhere, stolen),
        server(status=302, location=elsewhere) as (url, _),
        pytest.raises(BadInputError, match="found status 302"),
    ):
        get(url)
    assert stolen == []


def test_a_wrong_key_says_what_to_set() -> None:
    with server(status=401) as (url, _), pytest.raises(UsageError, match=r"\$EDGECLS_API_KEY"):
        get(url)


def test_too_much_is_not_read() -> None:
    with server(b"x" * 5000) as (url, _), pytest.raises(BadInputError, match="more than 1000"):
        get(url)


def test_a_server_that_drips_is_not_waited_for() -> None:
    """Every byte comes in time, all of them do not."""
    with (
        server(b"x" * 100, drip_s=0.1) as (url, _),
        pytest.raises(DeviceError, match=r"no answer within 0\.5 s"),
    ):
        get(url, timeout_s=0.5)


def test_nobody_there() -> None:
    with server() as (url, _):
        pass
    with pytest.raises(DeviceError, match="does the server run"):
        get(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://", "http://:80", "http://h:notaport", "http://u:p@h", "http://h/a b",
        "http://a..b:80", "http://" + "a" * 70, "http://\u20ac.example", "http://h/\u00fc",
        "ftp://h", "file:///etc/passwd", "://h",
    ],
)  # fmt: skip
def test_no_address(url: str) -> None:
    assert is_url(url)  # and no file of this name
    with pytest.raises(UsageError, match="http://HOST:PORT"):
        get(url)
