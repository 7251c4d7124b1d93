"""A new bundle takes over where it proves good; where not, the old one goes on."""

from __future__ import annotations

import asyncio
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from edgecls.bundle import Bundle
from edgecls.core.errors import BundleError, CheckFailedError
from edgecls.runtimes import Predictor, load
from edgecls.serve.counts import Counts
from edgecls.serve.field import field_sketch
from edgecls.serve.model import open_model
from edgecls.serve.service import Service, Upload
from edgecls.serve.settings import Settings

from ..runtimes.conftest import Made, MakeBundle, encoded, photo

NEW_LABELS = ("fig", "gum", "hop", "ivy", "jam")


@pytest.fixture
def bundles(
    make_bundle: MakeBundle, tmp_path: Path, tflite_int8: bytes, onnx_float: bytes
) -> dict[str, Path]:
    """Bundles by what is wrong with them."""
    made = Made("model.int8.tflite", "tflite", "int8", tflite_int8)

    def kept(name: str, **changes: Any) -> Path:
        return make_bundle(made, **changes).rename(tmp_path / name)

    found = {name: kept(name) for name in ("old", "damaged", "empty")}
    found["new"] = kept("new", labels=NEW_LABELS)
    found["without golden samples"] = kept("without golden samples", golden=0)
    (found["damaged"] / "model.int8.tflite").write_bytes(b"TFL3" + tflite_int8[4:-1] + b"?")
    shutil.rmtree(found["empty"])
    other = Made("model.int8.tflite", "tflite", "int8", onnx_float)
    found["no model"] = make_bundle(other).rename(tmp_path / "no model")
    return found


def ask(service: Service) -> Any:
    return asyncio.run(service.predict([Upload("a", encoded(photo()))], 1))[0]


def test_a_good_bundle_takes_over(bundles: dict[str, Path]) -> None:
    counts = Counts(1)
    service = Service(open_model(lambda: load(bundles["old"])), Settings(), counts)
    before = ask(service).top1.label
    old = service.model

    asyncio.run(service.reload(lambda: load(bundles["new"])))
    seen_by_new = field_sketch(counts, service.model).fingerprint.images
    after = ask(service).top1.label

    assert before in ("ant", "bee", "cat", "dog", "eel")
    assert after in NEW_LABELS
    assert counts.total("reloads") == [1, 0]
    assert counts.bundles() == [Bundle(bundles["new"]).sha256]
    assert seen_by_new == 0
    assert field_sketch(counts, service.model).fingerprint.images == 1
    assert old._users == 0
    service.close()
    assert service.model._users == 0


@pytest.mark.parametrize("bad", ["damaged", "empty", "without golden samples", "no model"])
def test_a_bad_bundle_is_refused(bundles: dict[str, Path], bad: str, caplog: Any) -> None:
    counts = Counts(1)
    service = Service(open_model(lambda: load(bundles["old"])), Settings(), counts)

    asyncio.run(service.reload(lambda: load(bundles[bad])))

    assert ask(service).top1.label in ("ant", "bee", "cat", "dog", "eel")
    assert counts.total("reloads") == [0, 1]
    assert counts.bundles() == [Bundle(bundles["old"]).sha256]
    assert "the old one goes on" in caplog.text
    service.close()


def test_whatever_goes_wrong_the_old_one_goes_on(bundles: dict[str, Path], caplog: Any) -> None:
    counts = Counts(1)
    service = Service(open_model(lambda: load(bundles["old"])), Settings(), counts)

    def without_memory() -> Predictor:
        raise MemoryError("no\nroom")

    asyncio.run(service.reload(without_memory))

    assert ask(service).top1.label in ("ant", "bee", "cat", "dog", "eel")
    assert counts.total("reloads") == [0, 1]
    assert r"the old one goes on: MemoryError: no\nroom" in caplog.text
    service.close()


def test_a_bundle_that_computes_something_else_is_refused(
    bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []
    real = Predictor.logits
    monkeypatch.setattr(Predictor, "logits", lambda self, pixels: real(self, pixels) * 2)
    monkeypatch.setattr(Predictor, "close", lambda self: closed.append(self))

    with pytest.raises(
        CheckFailedError, match=r"golden sample golden/0.png differs .*edgecls verify"
    ):
        open_model(lambda: load(bundles["old"]))
    assert len(closed) == 1
    with pytest.raises(BundleError):
        open_model(lambda: load(bundles["damaged"]))


def test_what_was_accepted_is_answered_by_its_own_bundle(
    bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(open_model(lambda: load(bundles["old"])), Settings(), Counts(1))
    old = service.model
    entered, go_on = threading.Event(), threading.Event()
    real = Predictor.logits

    def logits(predictor: Predictor, pixels: Any) -> Any:
        if threading.current_thread().name.startswith("edgecls-image"):
            entered.set()
            assert go_on.wait(30)
        return real(predictor, pixels)

    monkeypatch.setattr(Predictor, "logits", logits)

    async def run() -> Any:
        uploads = [Upload("a", encoded(photo(index))) for index in range(3)]
        asked = asyncio.create_task(service.predict(uploads, 1))
        await asyncio.to_thread(entered.wait)
        await service.reload(lambda: load(bundles["new"]))
        then = asyncio.create_task(service.predict(uploads, 1))
        assert old._users > 0
        go_on.set()
        return await asked, await then

    first, second = asyncio.run(run())

    assert all(each.top1.label in ("ant", "bee", "cat", "dog", "eel") for each in first)
    assert all(each.top1.label in NEW_LABELS for each in second)
    assert old._users == 0
    assert field_sketch(service.counts, service.model).fingerprint.images == 3
    service.close()
