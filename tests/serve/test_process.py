"""The command with real processes, sockets and signals."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from edgecls.bundle import Bundle
from edgecls.runtimes import load
from edgecls.runtimes.preprocess import to_pixels

from ..runtimes.conftest import PREPROCESS, Made, MakeBundle, encoded, photo
from .process import running

pytestmark = pytest.mark.slow

IMAGE = {"content-type": "image/png"}


def until(holds: Callable[[], bool], what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def ask(client: httpx2.Client, index: int = 0) -> httpx2.Response:
    return client.post("/v1/predict", content=encoded(photo(index)), headers=IMAGE)


def bundles_of(client: httpx2.Client) -> dict[str, int]:
    return {
        sample.labels["bundle_sha256"]: int(sample.value)
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
        if sample.name == "edgecls_bundle_workers"
    }


def value(client: httpx2.Client, name: str, **labels: str) -> float:
    return sum(
        sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def test_one_process_serves_and_ends(pi_bundle: Path) -> None:
    with running(pi_bundle) as server, server.client() as client:
        found = ask(client).json()["predictions"][0]

        assert found["topk"] == load(pi_bundle).predict(encoded(photo())).to_dict()["topk"]
        assert server.url.startswith("http://127.0.0.1:")
        assert client.get("/readyz").json()["bundle_sha256"] == Bundle(pi_bundle).sha256
        assert server.stop() == 0
        with pytest.raises(httpx2.TransportError):
            client.get("/healthz")
    assert "".join(server.log) == ""


def test_processes_share_the_port_and_the_counts(pi_bundle: Path) -> None:
    with running(pi_bundle, "--workers", 3) as server:
        assert len(server.children()) == 3

        def once(index: int) -> int:
            with server.client() as client:  # a connection of its own: any process may take it
                return ask(client, index % 5).status_code

        with ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(once, range(60)))
        with server.client() as client:
            for _ in range(10):
                with server.client() as other:
                    assert value(other, "edgecls_images_total", result="predicted") == 60
            assert client.get("/v1/field").json()["fingerprint"]["images"] == 60
            assert value(client, "edgecls_answers_total") == 60
            assert bundles_of(client) == {Bundle(pi_bundle).sha256: 3}

    assert statuses == [200] * 60


def test_a_process_that_a_fault_ended_is_replaced(pi_bundle: Path) -> None:
    with running(pi_bundle, "--workers", 2) as server, server.client() as client:
        ask(client)
        before = server.children()
        os.kill(before[0], signal.SIGKILL)
        until(lambda: set(server.children()) - set(before) != set(), "no other took its place")
        until(lambda: sum(bundles_of(client).values()) == 2, "it does not answer")

        assert value(client, "edgecls_images_total", result="predicted") == 1
        assert ask(client).status_code == 200
        assert server.stop() == 0
    assert "signal SIGKILL" in "".join(server.log)


def test_no_process_outlives_its_parent(pi_bundle: Path) -> None:
    with running(pi_bundle, "--workers", 2) as server:
        children = server.children()
        server.process.kill()
        server.process.wait()

        until(lambda: not any(_alive(child) for child in children), "a process was left")


def _alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    return False


@pytest.fixture
def changing(make_bundle: MakeBundle, tmp_path: Path, tflite_int8: bytes) -> Callable[..., Path]:
    """Put a bundle, whole, in the same place as the one before."""

    def change(data: bytes = tflite_int8, **changes: Any) -> Path:
        place = tmp_path / "served"
        made = make_bundle(Made("model.int8.tflite", "tflite", "int8", data), **changes)
        if place.exists():
            shutil.rmtree(place)
        return made.rename(place)

    return change


def test_sighup_lets_a_good_bundle_take_over(changing: Callable[..., Path]) -> None:
    old = changing()
    with running(old, "--workers", 2) as server, server.client() as client:
        before = Bundle(old).sha256
        new = Bundle(changing(labels=("fig", "gum", "hop", "ivy", "jam"))).sha256
        assert bundles_of(client) == {before: 2}
        statuses = []
        server.signal(signal.SIGHUP)

        def taken() -> bool:
            statuses.append(ask(client).status_code)
            return bundles_of(client) == {new: 2}

        until(taken, "the new bundle was not taken")
        assert ask(client).json()["predictions"][0]["topk"][0]["label"] in "fig gum hop ivy jam"
        assert set(statuses) == {200}
        assert value(client, "edgecls_reloads_total", result="taken") == 2


def damaged(data: bytes) -> bytes:
    """Keep the file's name and most of its bytes: hashes are right, the model is not."""
    return data[:8] + bytes(len(data) - 8)


@pytest.mark.parametrize("how", ["hash", "model", "gone"])
def test_sighup_refuses_a_bad_bundle(
    changing: Callable[..., Path], tflite_int8: bytes, how: str
) -> None:
    place = changing()
    with running(place, "--workers", 2) as server, server.client() as client:
        before = Bundle(place).sha256
        if how == "hash":
            (place / "model.int8.tflite").write_bytes(tflite_int8[:-1] + b"?")
        elif how == "model":
            changing(damaged(tflite_int8))
        else:
            shutil.rmtree(place)
        server.signal(signal.SIGHUP)
        until(
            lambda: value(client, "edgecls_reloads_total", result="refused") > 0, "nothing was said"
        )

        assert bundles_of(client) == {before: 2}
        assert ask(client).status_code == 200
        assert len(server.children()) == 2
    assert "the new bundle was refused" in "".join(server.log)


def test_the_end_answers_what_was_accepted(pi_bundle: Path) -> None:
    body = encoded(photo())
    head = (
        "POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
        f"Expect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with running(pi_bundle) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=60) as asked:
            asked.sendall(head.encode())
            assert asked.recv(1024).startswith(b"HTTP/1.1 100 ")  # it waits for the body
            server.signal(signal.SIGTERM)
            until(lambda: not _listens(host, int(port)), "it still takes connections")
            asked.sendall(body)
            answer = asked.recv(65536)
        assert server.process.wait(60) == 0

    assert answer.startswith(b"HTTP/1.1 200 ")


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def test_the_end_under_load(pi_bundle: Path) -> None:
    """Each sender sees answers until there is no server any more."""
    with running(pi_bundle, "--workers", 2) as server:

        def once(number: int) -> str:
            try:
                with server.client() as client:
                    return str(ask(client, number).status_code)
            except httpx2.ConnectError:
                return "refused"
            except httpx2.TransportError as error:
                # Taken by the kernel, not by a process: no byte of it was read.
                return type(error).__name__

        def stream(number: int) -> list[str]:
            found = ["200"]
            while found[-1] == "200":
                found.append(once(number))
            return found

        with ThreadPoolExecutor(4) as pool:
            streams = [pool.submit(stream, number) for number in range(4)]
            time.sleep(1)
            code = server.stop()
            found = [each.result() for each in streams]

    assert code == 0
    for each in found:
        assert len(each) > 3
        assert set(each[:-1]) == {"200"}


def test_a_slow_body_is_cut_off(pi_bundle: Path) -> None:
    with running(pi_bundle, "--timeout-s", 0.5) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as slow:
            slow.sendall(
                b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
                b"Content-Length: 100\r\n\r\nabc"
            )
            answer = slow.recv(65536)
        with server.client() as client:
            assert ask(client).status_code == 200

    assert answer.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("size", [300_000, 1_500_000])
def test_a_refused_sender_gets_its_answer(pi_bundle: Path, size: int) -> None:
    """Also one that sends more than the system's buffers hold before it looks for an answer."""
    key = "0123456789abcdef"
    with running(pi_bundle, "--max-upload-mb", 1, EDGECLS_API_KEY=key) as server:
        host, port = server.url.removeprefix("http://").split(":")
        for sent, status in (("", 401), (f"X-API-Key: {key}\r\n", 413 if size > 1 << 20 else 422)):
            head = (
                f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n{sent}"
                f"Content-Length: {size}\r\n\r\n"
            )
            with socket.create_connection((host, int(port)), timeout=30) as sender:
                sender.sendall(head.encode() + b"x" * size)
                time.sleep(0.3)  # for a reset to arrive, and what arrived before it to be lost

                assert sender.recv(65536).startswith(f"HTTP/1.1 {status} ".encode())


def test_a_refused_body_is_not_read_without_end(pi_bundle: Path) -> None:
    with running(pi_bundle, "--timeout-s", 0.5) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as sender:
            sender.sendall(
                b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Length: 999999999999\r\n\r\n"
            )
            assert sender.recv(65536).startswith(b"HTTP/1.1 413 ")

            with pytest.raises(OSError, match=r"reset|pipe"):
                until(lambda: sender.send(b"x" * 1000) == 0, "it reads on")


def test_who_asks_before_sending_is_refused_before_sending(pi_bundle: Path) -> None:
    with running(pi_bundle) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as asking:
            asking.sendall(
                b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
                b"Content-Length: 999999999\r\n\r\n"
            )

            assert asking.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_a_connection_that_asks_for_nothing_is_closed(pi_bundle: Path) -> None:
    with running(pi_bundle, "--timeout-s", 0.5) as server:
        host, port = server.url.removeprefix("http://").split(":")
        for sent in (b"", b"GET / HTTP/1.1\r\nX: "):
            with socket.create_connection((host, int(port)), timeout=30) as silent:
                silent.sendall(sent)

                assert silent.recv(1) == b""


@pytest.mark.parametrize("endless", [
    b"GET /" + b"x" * 65536,
    b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 65536,
    b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 8192,
    b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    + b"X: y\r\n" * 8192,
], ids=["path", "header", "headers", "trailers"])  # fmt: skip
def test_a_head_without_end_is_not_read(pi_bundle: Path, endless: bytes) -> None:
    """What is in it is kept until it is whole: a gigabyte, in the time that one may take."""
    more = endless[-6000:]
    with running(pi_bundle) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as sender:
            sent = sender.send(endless)
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                while sent < 64 << 20:
                    sent += sender.send(more)
        assert sent < 16 << 20  # what the sockets' buffers hold, and a little
        with server.client() as client:
            assert client.get("/healthz").status_code == 200


def test_more_connections_than_it_can_hold(pi_bundle: Path) -> None:
    """A process without a descriptor writes a log without end, and answers nobody."""
    with running(pi_bundle, "--timeout-s", 60, descriptors=200) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with contextlib.ExitStack() as stack:
            for _ in range(300):
                idle = socket.create_connection((host, int(port)), timeout=30)
                stack.enter_context(idle)
            until(lambda: _listens(host, int(port)), "it does not listen")
            with socket.create_connection((host, int(port)), timeout=30) as further:
                refused = further.recv(100).startswith(b"HTTP/1.1 503 ")
        with server.client() as client:
            until(lambda: client.get("/healthz").status_code == 200, "it does not recover")

    assert refused
    assert "".join(server.log) == ""


def test_an_answer_that_nobody_takes_is_given_up(pi_bundle: Path) -> None:
    asked = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50
    with running(pi_bundle, "--timeout-s", 0.5) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as asking:
            asking.settimeout(10)

            with pytest.raises(OSError, match=r"reset|pipe"):
                until(lambda: asking.sendall(asked) is not None, "it waits on")


def test_what_does_not_end_is_killed(pi_bundle: Path) -> None:
    with running(pi_bundle, "--timeout-s", 0.1) as server:
        (worker,) = server.children()
        os.kill(worker, signal.SIGSTOP)

        assert server.stop() == 70
        assert not _alive(worker)
    assert "did not end in time" in "".join(server.log)


def test_what_is_no_path_leaves_no_trace(pi_bundle: Path) -> None:
    with running(pi_bundle) as server:
        host, port = server.url.removeprefix("http://").split(":")
        for line in (b"OPTIONS *", b"CONNECT other:443", b"GET other"):
            with socket.create_connection((host, int(port)), timeout=30) as asking:
                asking.sendall(line + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                assert asking.recv(65536).startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 404 "))
        with server.client() as client:
            assert value(client, "edgecls_requests_total", path="other", status="404") == 1
            assert client.get("/v1/model", headers={"host": "other.example"}).status_code == 403
    assert "".join(server.log) == ""


def test_a_bad_bundle_does_not_start(changing: Callable[..., Path], tflite_int8: bytes) -> None:
    place = changing()
    (place / "model.int8.tflite").write_bytes(b"?")
    with running(place, "--workers", 2) as server:
        assert server.process.wait(60) == 4
    assert "is not the file that was exported" in "".join(server.log)


def test_the_network_without_a_key_is_warned_of(pi_bundle: Path) -> None:
    with running(pi_bundle, "--host", "0.0.0.0") as server:
        server.stop()
    assert "warning: 0.0.0.0 lets other machines in" in "".join(server.log)

    key = "0123456789abcdef"
    with running(pi_bundle, "--host", "0.0.0.0", EDGECLS_API_KEY=key) as server:
        assert httpx2.get(f"{server.url}/v1/model", trust_env=False).status_code == 401
        server.stop()
    assert "".join(server.log) == ""


def test_a_client_that_leaves_is_counted_and_no_more(pi_bundle: Path) -> None:
    with running(pi_bundle) as server, server.client() as client:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as leaving:
            leaving.sendall(
                b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc"
            )
        until(
            lambda: value(client, "edgecls_requests_total", path="/v1/predict", status="400") == 1,
            "it was not counted",
        )
        assert value(client, "edgecls_images_in_flight") == 0
    assert "".join(server.log) == ""


def test_a_public_client_of_the_protocol(pi_bundle: Path) -> None:
    http = pytest.importorskip("tritonclient.http")
    pixels = np.stack([to_pixels(encoded(photo(index)), PREPROCESS) for index in range(3)])
    tensor = PREPROCESS.normalize(pixels)
    expected = load(pi_bundle).logits(pixels)
    with running(pi_bundle) as server:
        client = http.InferenceServerClient(server.url.removeprefix("http://"))
        try:
            assert client.is_server_live()
            assert client.is_server_ready()
            assert client.is_model_ready("test")
            assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
            source = client.get_model_metadata("test")["inputs"][0]
            for binary in (True, False):
                given = http.InferInput(source["name"], list(tensor.shape), source["datatype"])
                given.set_data_from_numpy(tensor, binary_data=binary)
                wanted = http.InferRequestedOutput("logits", binary_data=binary)
                found = client.infer("test", [given], outputs=[wanted], request_id="7")

                assert np.array_equal(found.as_numpy("logits"), expected)
                assert found.get_response()["id"] == "7"
            assert np.array_equal(client.infer("test", [given]).as_numpy("logits"), expected)
            with pytest.raises(http.InferenceServerException, match="there is the model 'test'"):
                client.infer("other", [given])
        finally:
            client.close()
