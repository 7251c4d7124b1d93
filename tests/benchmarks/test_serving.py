"""The client of the load benchmark counts what it gets."""

from __future__ import annotations

import importlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("serving_client")


@pytest.mark.parametrize("connections", [1, 3])
def test_every_answer_is_counted(client: ModuleType, connections: int) -> None:
    asked: list[tuple[str, str | None, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            asked.append((self.path, self.headers["content-type"], body))
            if body == b"break":
                self.close_connection = True
                return
            self.send_response(503 if body == b"busy" else 200)
            self.send_header("content-length", "200000")
            self.end_headers()
            self.wfile.write(b"x" * 200_000)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    watched: list[int] = []
    try:
        requests = [
            client.post("/a", body, content_type="t") for body in (b"", b"busy", b"break", b"y")
        ]
        found = client.load(
            server.server_port, requests, connections=connections, total=200, watch=watched.append
        )
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

    assert found.statuses == {200: 100, 503: 50, 0: 50}
    assert len(found.latencies_s) == len(asked) == 200
    assert {kind for _, kind, _ in asked} == {"t"}
    assert watched == [100, 200]
    assert found.rate == 100 / found.seconds
    assert found.quantile_ms(0) <= found.quantile_ms(0.5) <= found.quantile_ms(1)


def test_a_tensors_request_says_where_it_begins(client: ModuleType) -> None:
    made = client.tensor_request("/v2/models/m/infer", "input", b"1234" * 3, (1, 3))

    head, _, body = made.partition(b"\r\n\r\n")
    lines = dict(line.split(b": ") for line in head.split(b"\r\n")[1:])
    length = int(lines[b"inference-header-content-length"])
    assert body[length:] == b"1234" * 3
    assert int(lines[b"content-length"]) == len(body)
    assert b'"binary_data_size": 12' in body[:length]
