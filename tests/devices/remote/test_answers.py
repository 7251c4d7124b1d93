"""Questions in chunks: what is sent, what is kept, and how a run goes on after a break."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from edgecls.bundle import Bundle
from edgecls.core.errors import BadInputError, DataError, DeviceError
from edgecls.core.files import sha256_file
from edgecls.devices.remote import Answers, Image, Session, Tally, ask
from edgecls.devices.remote.address import SshTarget
from edgecls.devices.remote.answers import Question
from edgecls.devices.remote.transport import OUTPUT_LIMIT_BYTES, Completed, LostError
from edgecls.runtimes import load
from edgecls.runtimes.logits_file import LogitsFile

# The asking side: a device has no SSH client.
pytest.importorskip("asyncssh")
pytest.importorskip("ai_edge_litert")


class Here:
    """A device that is this machine with another cache; counts, and breaks when it is told to."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.ran: list[str] = []
        self.received = 0
        self.lose_at: tuple[str, int] | None = None
        self.lose_after = False

    async def run(
        self, arguments: Sequence[str], *, stdin: Iterable[bytes] = (),
        limit_bytes: int = OUTPUT_LIMIT_BYTES,
    ) -> Completed:  # fmt: skip
        self.ran.append(arguments[3])
        lost = self.lose_at == (arguments[3], self.ran.count(arguments[3]))
        if lost and not self.lose_after:
            raise LostError("pulled")
        data = b"".join(stdin)
        self.received += len(data) if arguments[3] == "receive" else 0
        python = sys.executable if arguments[0] == "python3" else arguments[0]
        done = subprocess.run(
            [python, *arguments[1:]], input=data, capture_output=True, check=False,
            env=os.environ | {"EDGECLS_CACHE": str(self.cache), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        if lost:
            raise LostError("pulled")
        return Completed(code=done.returncode, out=done.stdout, err=done.stderr.decode())


@pytest.fixture
def device(tmp_path: Path) -> Here:
    return Here(tmp_path / "there")


def session(device: Here, notes: list[str] | None = None) -> Session:
    found: list[str] = [] if notes is None else notes
    target = SshTarget(name="kitchen", user="pi", host="kitchen")
    return Session(target, device, Tally(), found.append)


def question(bundle: Path, photos: list[Path], **more: Any) -> Question:
    images = [Image.of(path.name, path) for path in photos]
    return Question(bundle=Bundle(bundle), images=images, batch=4, **more)


def answers(device: Here, asked: Question) -> Answers:
    return asyncio.run(ask(session(device), asked))


def expected(bundle: Path, photos: list[Path]) -> dict[str, Any]:
    """The oracle: this machine's own predictor."""
    found = load(bundle).predict_stream(map(str, photos), 5, logits=True)
    return {path.name: result for path, result in zip(photos, found, strict=True)}


def check(found: Answers, asked: Question, bundle: Path, photos: list[Path], out: Path) -> None:
    """Compare lines and the file of logits with the oracle."""
    wanted = expected(bundle, photos)
    for line in found.lines(asked.images):
        if line.image == "broken.png":
            assert "not an image" in line.error or line.error == wanted["broken.png"].reason
        else:
            assert [(r.index, r.label) for r in line.topk] == [
                (r.index, r.label) for r in wanted[line.image].topk
            ]
    found.write(out, asked.images, {"gone.png": "no such file"})
    file = LogitsFile(out)
    assert {name for name, _ in file.errors} == {"broken.png", "gone.png"}
    assert [name for name, _ in file.images] == [p.name for p in photos if p.name != "broken.png"]
    for path in photos:
        if path.name != "broken.png":
            (row,) = file.logits([sha256_file(path)])
            assert tuple(row.tolist()) == wanted[path.name].logits


def test_it_answers_as_this_machine_does(
    device: Here, pi_bundle: Path, photos: list[Path], tmp_path: Path
) -> None:
    asked = question(pi_bundle, photos)

    found = answers(device, asked)

    check(found, asked, pi_bundle, photos, tmp_path / "logits")
    # Ten different files of eleven, in chunks of four; no name of here went there.
    assert device.ran.count("predict") == 3
    names = {path.name for path in device.cache.rglob("*")}
    assert not names & {path.name for path in photos}
    assert list((device.cache / "logits").iterdir()) == []


@pytest.mark.slow
def test_a_second_run_sends_nothing(device: Here, pi_bundle: Path, photos: list[Path]) -> None:
    asked = question(pi_bundle, photos)
    answers(device, asked).forget()
    first = device.received
    size = sum(file.stat().st_size for file in pi_bundle.rglob("*") if file.is_file())
    assert first > size

    answers(device, asked).forget()

    assert device.received == first
    assert device.ran.count("predict") == 6  # asked anew: answers of yesterday are none of today
    (device.cache / "bundles" / asked.bundle.sha256 / "model.int8.tflite").write_bytes(b"damaged")
    answers(device, asked)
    model = (pi_bundle / "model.int8.tflite").stat().st_size
    assert model < device.received - first < model + 300


@pytest.mark.parametrize(
    ("command", "count"),
    [("about", 1), ("missing", 1), ("receive", 1), ("missing", 2), ("receive", 3), ("predict", 2),
     ("fetch", 2)],
)  # fmt: skip
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.slow
def test_a_run_goes_on_where_it_stopped(
    device: Here, pi_bundle: Path, photos: list[Path], tmp_path: Path, command: str, count: int,
    after: bool,
) -> None:  # fmt: skip
    asked = question(pi_bundle, photos)
    device.lose_at, device.lose_after = (command, count), after
    with pytest.raises(LostError):
        answers(device, asked)
    device.lose_at = None
    before = device.ran.count("predict")
    fetched = device.ran.count("fetch") - (command == "fetch")

    found = answers(device, asked)

    check(found, asked, pi_bundle, photos, tmp_path / "logits")
    assert device.ran.count("predict") == before + 3 - fetched
    found.forget()
    assert not list((tmp_path / "here").rglob("*.logits"))


@pytest.mark.slow
def test_finished_chunks_are_not_asked_again(
    device: Here, pi_bundle: Path, photos: list[Path], tmp_path: Path
) -> None:
    asked = question(pi_bundle, photos)
    device.lose_at = ("predict", 3)
    with pytest.raises(LostError):
        answers(device, asked)
    device.lose_at = None
    tally = Tally()
    again = session(device)
    again.tally = tally

    found = asyncio.run(ask(again, asked))

    assert (tally.done, tally.total) == (10, 10)
    assert device.ran.count("predict") == 4
    check(found, asked, pi_bundle, photos, tmp_path / "logits")


def test_another_question_is_another_run(device: Here, pi_bundle: Path, photos: list[Path]) -> None:
    asked = question(pi_bundle, photos[:2])
    answers(device, asked)

    found = answers(device, question(pi_bundle, photos[:2], topk=2))

    assert [len(line.topk) for line in found.lines(asked.images)][-1] == 2
    assert device.ran.count("predict") == 2


@pytest.mark.slow
def test_a_device_that_changed_between_is_not_mixed(
    device: Here, pi_bundle: Path, photos: list[Path], tmp_path: Path
) -> None:
    asked = question(pi_bundle, photos)
    device.lose_at = ("predict", 3)
    with pytest.raises(LostError):
        answers(device, asked)
    device.lose_at = None
    for file in (tmp_path / "here").rglob("*.logits"):
        kept = LogitsFile(file)
        description = kept.header.description | {"library": "another"}
        header = type(kept.header)(**{
            **{name: getattr(kept.header, name) for name in kept.header.__struct_fields__},
            "description": description,
        })  # fmt: skip
        from edgecls.runtimes.logits_file import write_logits

        rows = [(name, digest, kept.logits([digest])[0].tolist()) for name, digest in kept.images]
        with write_logits(file, header) as writer:
            for row in rows:
                writer.add(*row)

    with pytest.raises(DeviceError, match="what runs there changed"):
        answers(device, asked)
    assert not list((tmp_path / "here").rglob("*.logits"))


def test_what_somebody_clears_meanwhile_is_no_broken_image(
    device: Here, pi_bundle: Path, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = question(pi_bundle, photos)
    run = device.run

    async def cleared(arguments: Sequence[str], **options: Any) -> Completed:
        if arguments[3] == "predict":
            for file in (device.cache / "images").iterdir():
                file.unlink()
        return await run(arguments, **options)

    monkeypatch.setattr(device, "run", cleared)

    with pytest.raises(LostError, match="removed there meanwhile"):
        answers(device, asked)


def test_only_broken_images_are_no_logits(device: Here, pi_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    asked = question(pi_bundle, [tmp_path / "a.png"])

    found = answers(device, asked)

    assert found.header is None
    assert [bool(line.error) for line in found.lines(asked.images)] == [True]
    with pytest.raises(DataError, match="no image could be read there"):
        found.write(tmp_path / "logits", asked.images, {})


def test_an_image_that_changes_on_the_way_is_told(
    device: Here, pi_bundle: Path, photos: list[Path]
) -> None:
    asked = question(pi_bundle, photos[:1])
    photos[0].write_bytes(b"something else, and longer than the image was" * 1000)

    with pytest.raises(BadInputError, match="changed while it was sent"):
        answers(device, asked)


def test_an_error_there_is_an_error_here(device: Here, pi_bundle: Path, photos: list[Path]) -> None:
    with pytest.raises(BadInputError, match=r"^kitchen: the bundle has no onnx .*exit code 4"):
        answers(device, question(pi_bundle, photos, options=("--backend", "tensorrt")))


def test_a_login_that_prints_is_told(
    device: Here, pi_bundle: Path, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def banner(arguments: Sequence[str], **options: Any) -> Completed:
        return Completed(code=0, out=b"Welcome!\n{}", err="")

    monkeypatch.setattr(device, "run", banner)

    with pytest.raises(DeviceError, match="does a login there print something"):
        answers(device, question(pi_bundle, photos))


@pytest.mark.parametrize("name", ["a.PNG", "b", "c.j;rm", "d.a b", "e."])
def test_only_a_plain_suffix_goes_there(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")

    sent = Image.of(name, tmp_path / name).sent

    digest = sha256_file(tmp_path / name)
    assert sent.name == f"images/{digest}" + (".png" if name == "a.PNG" else "")
