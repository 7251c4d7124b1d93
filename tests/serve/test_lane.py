"""Micro-batching, overload, time limits and what happens to accepted images at the end."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecls.runtimes import Predictor, load
from edgecls.runtimes.prediction import Prediction
from edgecls.runtimes.preprocess import to_pixels
from edgecls.serve.counts import Counts
from edgecls.serve.errors import RequestError
from edgecls.serve.model import open_model
from edgecls.serve.service import Service, Upload
from edgecls.serve.settings import Settings

from ..runtimes.conftest import PREPROCESS, encoded, photo
from .conftest import Serve


class Gate:
    """Lets the model run when it is told to, and notes how many images ran at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.entered = threading.Semaphore(0)
        self.batches: list[int] = []
        real = Predictor.logits

        def logits(predictor: Predictor, pixels: Any) -> Any:
            if threading.current_thread().name.startswith("edgecls-image"):
                self.batches.append(len(pixels))
                self.entered.release()
                assert self.open.wait(30)
            return real(predictor, pixels)

        monkeypatch.setattr(Predictor, "logits", logits)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.002)


def post(server: Any, index: int = 0) -> Any:
    return server.post(
        "/v1/predict", content=encoded(photo(index)), headers={"content-type": "image/png"}
    )


def test_what_waits_runs_together(serve: Serve, jetson_bundle: Path, gate: Gate) -> None:
    server = serve(jetson_bundle, backend="onnxruntime", max_batch=4)
    local = load(jetson_bundle, backend="onnxruntime")
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(post, server)
        gate.entered.acquire()  # the first runs alone: nothing else was on its way
        others = [pool.submit(post, server, index) for index in range(7)]
        until(lambda: len(server.service._lane._jobs) == 7)
        gate.open.set()
        answers = [future.result() for future in [first, *others]]

    assert gate.batches == [1, 4, 3]
    for index, answer in zip([0, *range(7)], answers, strict=True):
        (found,) = answer.json()["predictions"]
        want = local.predict(encoded(photo(index)))
        assert found["topk"][0]["index"] == want.top1.index
        assert found["topk"][0]["score"] == pytest.approx(want.top1.score, abs=1e-6)


def test_a_model_of_one_image_runs_one_after_the_other(
    serve: Serve, pi_bundle: Path, gate: Gate
) -> None:
    server = serve(pi_bundle, max_batch=4, max_wait_ms=1000)
    gate.open.set()

    answer = server.post("/v1/predict", files=[("image", ("a", encoded(photo())))] * 3)

    assert answer.status_code == 200
    assert gate.batches == [1, 1, 1]
    assert server.get("/v1/model").json()["limits"]["images_at_once"] == 1


def test_images_of_one_request_run_together(serve: Serve, jetson_bundle: Path, gate: Gate) -> None:
    """The first waits for the others because they are on their way, not for the time."""
    server = serve(jetson_bundle, backend="onnxruntime", max_batch=8, max_wait_ms=30_000)
    gate.open.set()

    server.post("/v1/predict", files=[("image", ("a", encoded(photo())))] * 5)

    assert gate.batches == [5]


def test_an_unusable_image_is_not_waited_for(serve: Serve, jetson_bundle: Path, gate: Gate) -> None:
    server = serve(jetson_bundle, backend="onnxruntime", max_wait_ms=30_000)
    gate.open.set()
    files = [("image", ("a", encoded(photo()))), ("image", ("b", b"no image"))]

    answer = server.post("/v1/predict", files=files)

    assert answer.status_code == 200
    assert gate.batches == [1]


def test_overload_is_said_at_once_and_nothing_accepted_is_lost(
    serve: Serve, pi_bundle: Path, gate: Gate
) -> None:
    server = serve(pi_bundle, queue=3)
    with ThreadPoolExecutor(3) as pool:
        accepted = [pool.submit(post, server, index) for index in range(3)]
        until(lambda: server.service._taken == 3)
        refused = [post(server) for _ in range(5)]  # none of them waits: the gate is shut
        in_flight = server.service.counts.total("in_flight")
        gate.open.set()
        answers = [future.result() for future in accepted]
    until(lambda: server.service._taken == 0)

    assert in_flight == [3]
    assert [answer.status_code for answer in answers] == [200] * 3
    for answer in refused:
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "overloaded"
        assert int(answer.headers["retry-after"]) >= 1
    assert post(server).status_code == 200


def test_a_request_is_taken_whole_or_not_at_all(serve: Serve, pi_bundle: Path, gate: Gate) -> None:
    server = serve(pi_bundle, queue=3, max_images=3)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(post, server)
        gate.entered.acquire()
        refused = server.post("/v1/predict", files=[("image", ("a", encoded(photo())))] * 3)
        gate.open.set()
        first.result()
    until(lambda: server.service._taken == 0)

    assert refused.status_code == 503
    assert gate.batches == [1]


def test_what_is_late_is_said_and_not_run(serve: Serve, pi_bundle: Path, gate: Gate) -> None:
    server = serve(pi_bundle, timeout_s=0.2)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(post, server, 0)
        gate.entered.acquire()
        second = pool.submit(post, server, 1)
        answers = [first.result(), second.result()]
        gate.open.set()
    until(lambda: server.service._taken == 0)

    for answer in answers:
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "timeout"
        assert answer.headers["retry-after"]
    assert gate.batches == [1]  # the second waited longer than anyone waits for it
    assert server.service.counts.total("images") == [0, 0, 2]
    assert post(server).status_code == 200


def test_the_end_waits_for_what_was_accepted(pi_bundle: Path, gate: Gate) -> None:
    service = Service(open_model(lambda: load(pi_bundle)), Settings(), Counts(1))

    async def run() -> Any:
        uploads = [Upload("a", encoded(photo(index))) for index in range(4)]
        asked = asyncio.create_task(service.predict(uploads, 5))
        await asyncio.to_thread(gate.entered.acquire)
        closed = asyncio.create_task(asyncio.to_thread(service.close))
        await asyncio.sleep(0.05)
        assert not closed.done()
        gate.open.set()
        await closed
        return await asked

    found = asyncio.run(run())

    assert [type(each) for each in found] == [Prediction] * 4


def test_a_fault_of_the_model_is_no_secret_told(
    serve: Serve, pi_bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    server = serve(pi_bundle)

    def broken(predictor: Predictor, pixels: Any) -> Any:
        raise RuntimeError("/secret/place of a file")

    monkeypatch.setattr(Predictor, "logits", broken)
    answer = post(server)
    monkeypatch.undo()

    assert answer.status_code == 500
    assert answer.json() == {
        "error": {"code": "internal", "message": "the server failed; its log says how"}
    }
    assert "/secret/place" in caplog.text
    assert post(server).status_code == 200


def test_logits_that_are_no_numbers_are_a_fault(
    serve: Serve, jetson_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(jetson_bundle, backend="onnxruntime")
    monkeypatch.setattr(
        Predictor, "logits", lambda _, pixels: np.full((len(pixels), 5), np.nan, np.float32)
    )

    assert post(server).status_code == 500


def test_more_than_the_queue_holds_is_refused(pi_bundle: Path) -> None:
    service = Service(open_model(lambda: load(pi_bundle)), Settings(queue=2), Counts(1))
    uploads = [Upload("a", encoded(photo()))] * 3

    with pytest.raises(RequestError) as refused:
        asyncio.run(service.predict(uploads, 5))
    service.close()

    assert refused.value.status == 503


@pytest.mark.parametrize("where", ["observe_batch", "observe_seconds"])
def test_a_fault_behind_the_model_stops_nothing_else(
    serve: Serve, pi_bundle: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Nobody would run the model any more: every later image would be late."""
    server = serve(pi_bundle, timeout_s=3)

    def broken(*_: object) -> None:
        raise ValueError("a count that cannot be")

    with monkeypatch.context() as patch:
        patch.setattr(Counts, where, broken)
        answer = post(server)
    until(lambda: server.service._taken == 0)

    assert answer.status_code == 500
    assert post(server).status_code == 200


def test_too_few_logits_are_a_fault_of_those_images_only(
    serve: Serve, jetson_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(jetson_bundle, backend="onnxruntime", timeout_s=3)
    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "logits", lambda *_: np.zeros((0, 5), np.float32))
        assert post(server).status_code == 500

    assert post(server).status_code == 200


def test_tensors_do_not_wait_for_images(jetson_bundle: Path) -> None:
    opened = open_model(lambda: load(jetson_bundle, backend="onnxruntime"))
    service = Service(opened, Settings(max_wait_ms=5000, timeout_s=2), Counts(1))
    service._lane.expect(1)  # an image is on its way, and takes long
    pixels = np.stack([to_pixels(encoded(photo(index)), PREPROCESS) for index in range(2)])
    expected = opened.predictor.logits(pixels)

    found = asyncio.run(service.logits(PREPROCESS.normalize(pixels)))  # 503 "timeout" if it waits
    service._lane.miss()
    service.close()

    assert np.array_equal(found, expected)


def test_a_model_that_does_not_close_stops_nothing_else(
    serve: Serve, pi_bundle: Path, monkeypatch: pytest.MonkeyPatch, gate: Gate, caplog: Any
) -> None:
    server = serve(pi_bundle, timeout_s=3)
    with ThreadPoolExecutor(2) as pool, monkeypatch.context() as patch:
        patch.setattr(Predictor, "close", lambda _: (_ for _ in ()).throw(OSError("it is gone")))
        first = pool.submit(post, server)
        gate.entered.acquire()
        server.portal.call(server.service.reload, lambda: load(pi_bundle))
        gate.open.set()  # the last that uses the old model is answered now
        assert first.result().status_code == 200
        until(lambda: server.service._taken == 0)
        assert post(server).status_code == 200

    assert "it is gone" in caplog.text
