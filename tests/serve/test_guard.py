"""The API key, the headers of every answer, and the form of every error."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from edgecls.core.errors import UsageError
from edgecls.serve.counts import Counts
from edgecls.serve.guard import Guard, label_of
from edgecls.serve.settings import KEY_VARIABLE, Settings, find_api_key
from edgecls.serve.supervisor import is_loopback, listen

from ..runtimes.conftest import encoded, photo
from .conftest import Serve

KEY = "0123456789abcdef-key"
OPEN = [
    "/",
    "/static/page.js",
    "/healthz",
    "/readyz",
    "/v2/health/live",
    "/v2/health/ready",
    "/openapi.json",
]
CLOSED = [
    "/v1/model", "/v1/field", "/metrics", "/v2", "/v2/models/test", "/nothing",
]  # fmt: skip


@pytest.mark.parametrize("path", OPEN)
def test_open_paths_need_no_key(serve: Serve, pi_bundle: Path, path: str) -> None:
    assert serve(pi_bundle, api_key=KEY).get(path).status_code == 200


@pytest.mark.parametrize("path", CLOSED)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-api-key": ""},
        {"x-api-key": KEY[:-1]},
        {"x-api-key": KEY + "x"},
        {"authorization": KEY},
        {"authorization": f"Basic {KEY}"},
        {"authorization": "Bearer"},
    ],
)
def test_other_paths_need_the_key(
    serve: Serve, pi_bundle: Path, path: str, headers: dict[str, str]
) -> None:
    answer = serve(pi_bundle, api_key=KEY).get(path, headers=headers)

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "API key" in str(answer.json()["error"])


@pytest.mark.parametrize(
    "headers",
    [{"x-api-key": KEY}, {"authorization": f"Bearer {KEY}"}, {"Authorization": f"bearer {KEY}"}],
)
def test_the_key_lets_in(serve: Serve, pi_bundle: Path, headers: dict[str, str]) -> None:
    server = serve(pi_bundle, api_key=KEY)

    assert server.get("/v1/model", headers=headers).status_code == 200
    image = {"content-type": "image/png", **headers}
    posted = server.post("/v1/predict", content=encoded(photo()), headers=image)
    assert posted.status_code == 200


def test_the_key_is_asked_for_before_the_body_is_looked_at(serve: Serve, pi_bundle: Path) -> None:
    server = serve(pi_bundle, api_key=KEY, max_upload_bytes=10)

    answer = server.post("/v1/predict", content=b"more than ten bytes")

    assert answer.status_code == 401


def test_the_key_comes_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    monkeypatch.delenv(KEY_VARIABLE, raising=False)

    assert find_api_key(None) is None
    assert find_api_key(file) == KEY
    monkeypatch.setenv(KEY_VARIABLE, KEY + "2")
    assert find_api_key(None) == KEY + "2"
    assert find_api_key(file) == KEY


def test_an_empty_variable_is_not_taken_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "")

    with pytest.raises(UsageError, match=r"^\$EDGECLS_API_KEY: expected an API key of 16 or more"):
        find_api_key(None)


@pytest.mark.parametrize("text", ["", "short", "a" * 15, "with a space in it all", "ü" * 20])
def test_a_poor_key_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "key"
    file.write_text(text)

    with pytest.raises(UsageError, match="16 or more"):
        find_api_key(file)


@pytest.mark.parametrize("path", ["/", "/v1/model", "/nothing", "/static/page.css", "/v2"])
def test_every_answer_has_the_security_headers(serve: Serve, pi_bundle: Path, path: str) -> None:
    headers = serve(pi_bundle).get(path).headers

    policy = dict(
        part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert "server" not in headers
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/docs", 404, "not_found"),
        ("GET", "/static/../app.py", 404, "not_found"),
        ("GET", "/static/%2e%2e/app.py", 404, "not_found"),
        ("GET", "/v1/predict", 405, "method_not_allowed"),
        ("DELETE", "/v1/model", 405, "method_not_allowed"),
    ],
)
def test_errors_have_one_form(
    serve: Serve, pi_bundle: Path, method: str, path: str, status: int, code: str
) -> None:
    answer = serve(pi_bundle).request(method, path)

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["error"]["code"] == code
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False)],
)
def test_loopback_is_known(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8000", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("192.168.1.7", 200),
        ("evil.example:8000", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("[evil.example]:8000", 403),
        ("", 403),
    ],
)
def test_a_foreign_name_of_this_machine_is_refused(
    serve: Serve, pi_bundle: Path, host: str, status: int
) -> None:
    """A page whose name was made to resolve to 127.0.0.1 must not read what this server says."""
    for path in ("/v1/model", "/metrics", "/"):
        headers = {"host": host}

        assert serve(pi_bundle, local_only=True).get(path, headers=headers).status_code == status
        assert serve(pi_bundle).get(path, headers=headers).status_code == 200
    keyed = serve(pi_bundle, local_only=True, api_key=KEY)
    assert keyed.get("/v1/model", headers={"host": host, "x-api-key": KEY}).status_code == 200


@pytest.mark.parametrize(
    ("site", "status"),
    [("same-origin", 200), ("none", 200), ("same-site", 403), ("cross-site", 403)],
)
def test_another_sites_page_may_not_send(
    serve: Serve, pi_bundle: Path, site: str, status: int
) -> None:
    headers = {"sec-fetch-site": site}
    server = serve(pi_bundle)

    posted = server.post("/v1/predict", files={"image": encoded(photo())}, headers=headers)

    assert posted.status_code == status
    assert server.get("/v1/field").json()["fingerprint"]["images"] == (status == 200)
    assert server.get("/", headers=headers).status_code == 200  # a link to the page


@pytest.mark.parametrize("path", ["/healthz/", "/v1/predict/", "/static", "/v2/"])
def test_nobody_is_sent_to_where_the_host_header_says(
    serve: Serve, pi_bundle: Path, path: str
) -> None:
    answer = serve(pi_bundle).get(path, headers={"host": "evil.example"}, follow_redirects=False)

    assert answer.status_code == 404


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("/healthz", "/healthz"),
        ("/static/page.js", "/static"),
        ("/v2/models/x/infer", "/v2"),
        ("/v2", "/v2"),
        ("/v2x", "other"),
        ("//v2", "other"),
        ("*", "other"),
        ("host:443", "other"),
        ("", "other"),
    ],
)
def test_every_path_counts_as_one_of_few(path: str, label: str) -> None:
    assert label_of(path) == label


def test_a_path_writes_no_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("on purpose")

    client = TestClient(Guard(fails, settings=Settings(), counts=Counts(1)))

    assert client.get("/v1/x%0aERROR: all is lost").status_code == 500
    assert "on purpose" in caplog.text
    assert "all is lost" not in caplog.text


@pytest.mark.parametrize("host", ["a" * 70, "a..b", ""])
def test_a_host_that_is_no_name_says_what_to_do(host: str) -> None:
    with pytest.raises(UsageError, match=r"cannot listen on .*--host"):
        listen(host, 0)


def test_a_taken_port_says_what_to_do() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(UsageError, match=f"port {port}: .*--port"):
            listen("127.0.0.1", port)
    with pytest.raises(UsageError, match=r"cannot listen on 192\.0\.2\.1"):
        listen("192.0.2.1", 0)  # nobody's: RFC 5737
    if os.geteuid() != 0:
        with pytest.raises(UsageError, match="cannot listen"):
            listen("127.0.0.1", 1)


def test_who_was_not_told_to_send_its_body_is_sent_away(serve: Serve, pi_bundle: Path) -> None:
    """A proxy that kept the connection would lose another's request: it would be the body."""
    server = serve(pi_bundle, max_upload_bytes=100_000)
    asks = {"content-type": "image/png", "expect": "100-continue"}
    long = {**asks, "content-length": "99999999"}

    refused = server.post("/v1/predict", content=b"", headers=long)
    found = server.post("/v1/predict", content=encoded(photo()), headers=asks)

    assert refused.status_code == 413
    assert refused.headers["connection"] == "close"
    assert server.post("/v1/nothing", headers=asks).headers["connection"] == "close"
    assert found.status_code == 200
    assert "connection" not in found.headers
