"""The commands with --on, against a real OpenSSH server."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgecls.devices.remote import worst
from edgecls.runtimes.logits_file import LogitsFile

from ...runtimes.conftest import encoded, photo
from .conftest import SSHD, Server, start

if TYPE_CHECKING:
    from edgecls.devices.virtual import VirtualPi

    from ...conftest import Command

pytestmark = [pytest.mark.skipif(SSHD is None, reason="sshd is not installed"), pytest.mark.slow]

ROOT = Path(__file__).parents[3]


def config(folder: Path, *more: str, **servers: Server) -> Path:
    """Write an edgecls.toml with these devices."""
    lines = list(more)
    for name, server in servers.items():
        lines.append(f"[devices.{name}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in server.entry().items()]
    file = folder / "edgecls.toml"
    file.write_text("\n".join(lines))
    return file


@contextlib.contextmanager
def dropped_after_a_chunk(server: Server, kept: Path) -> Iterator[None]:
    """Break the connection once the first chunk's answers are here."""
    ended = threading.Event()

    def wait() -> None:
        while not ended.wait(0.005):
            if list(kept.glob("*/*.jsonl")):
                server.drop()
                return

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """More images than two chunks hold."""
    folder = tmp_path / "many"
    for index in range(280):
        file = folder / str(index % 5) / f"{index} of 280.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(photo(index)))
    return folder


def test_predict_answers_as_here(
    server: Server, edgecls: Command, pi_bundle: Path, photos: list[Path], tmp_path: Path
) -> None:
    file = config(tmp_path, kitchen=server)
    names = [path for path in photos if not path.name.startswith("-")]
    command = ["predict", pi_bundle, *names, tmp_path / "none.png", "--json"]
    there = edgecls(*command, "--on", "kitchen", "-c", file)
    mine = edgecls(*command)

    (found,) = map(json.loads, there.out.splitlines())
    assert (there.code, mine.code) == (4, 4)
    assert (found["device"], found["exit_code"], found["error"]) == ("kitchen", 4, None)

    def told(line: dict[str, Any]) -> Any:
        return line["image"], line.get("topk"), "error" in line

    assert [told(line) for line in found["result"]] == [
        told(json.loads(line)) for line in mine.out.splitlines()
    ]
    text = edgecls("predict", pi_bundle, names[0], "--on", "kitchen", "-c", file)
    assert text.code == 0
    assert text.out.splitlines()[1:] == edgecls("predict", pi_bundle, names[0]).out.splitlines()[1:]


def test_recorded_logits_are_the_same_file(
    server: Server, edgecls: Command, pi_bundle: Path, many: Path, tmp_path: Path
) -> None:
    """With a connection that breaks in the middle."""
    file = config(tmp_path, kitchen=server)
    command = ["predict", pi_bundle, "--data", many, "--threads", "1", "--save-logits"]
    with dropped_after_a_chunk(server, tmp_path / "here/remote"):
        there = edgecls(*command, tmp_path / "there.logits", "--on", "kitchen", "-c", file)
    mine = edgecls(*command, tmp_path / "mine.logits")

    assert (there.code, mine.code) == (0, 0)
    assert "note: kitchen went away at" in there.err
    assert "128 of 280 images answered; trying again in 1 s" in there.err
    assert (tmp_path / "there.logits").read_bytes() == (tmp_path / "mine.logits").read_bytes()
    assert not list((tmp_path / "here/remote").iterdir())


def test_the_same_command_goes_on(
    server: Server, edgecls: Command, pi_bundle: Path, many: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from edgecls.devices.remote import fleet

    monkeypatch.setattr(fleet.on_each, "__defaults__", ((),))
    file = config(tmp_path, kitchen=server)
    command = ["predict", pi_bundle, "--data", many, "--json", "--on", "kitchen", "-c", file]
    with dropped_after_a_chunk(server, tmp_path / "here/remote"):
        first = edgecls(*command)

    (found,) = map(json.loads, first.out.splitlines())
    assert first.code == 3
    assert "128 of 280 images answered" in found["error"]
    assert "The same command again goes on from there" in found["error"]
    kept = list((tmp_path / "here/remote").glob("*/*.jsonl"))
    assert len(kept) == 1
    speeds = [json.loads(line)["speed_ms"] for line in kept[0].read_text().splitlines()]

    second = edgecls(*command)

    (found,) = map(json.loads, second.out.splitlines())
    assert second.code == 0
    assert len(found["result"]) == 280
    # Measured times are those of the first run: these images were not asked about again.
    assert [line["speed_ms"] for line in found["result"][:128]] == speeds


def test_drift_compares_here_what_answers_there(
    server: Server, edgecls: Command, pi_bundle: Path, many: Path, tmp_path: Path
) -> None:
    table = f'[drift]\non = ["kitchen"]\nbundle = {json.dumps(str(pi_bundle))}\n'
    file = config(tmp_path, table, kitchen=server)
    options = ["--data", many, "--images", "40", "--max-drop", "50", "--json"]
    done = edgecls("drift", "--reference", pi_bundle, "-c", file, *options)

    found = json.loads(done.out)
    assert done.code == 0, done.err
    assert found["candidate"] == f"{pi_bundle} on kitchen"
    assert found["metrics"]["images"] == 40
    assert found["metrics"]["agreed"] == 40
    assert found["backends"]["candidate"] == "litert (recorded)"
    assert edgecls("drift", "--reference", pi_bundle, "-c", file).code == 2
    edgecls("drift", "-c", file, *options[:4], "--save-baseline", tmp_path / "baseline.json")
    again = edgecls("drift", "-c", file, "--baseline", tmp_path / "baseline.json", *options)
    assert json.loads(again.out)["metrics"]["agreed"] == 40


def test_drift_on_two_devices(
    server: Server, other: Server, edgecls: Command, pi_bundle: Path, many: Path, tmp_path: Path
) -> None:
    file = config(tmp_path, kitchen=server, cellar=other)
    both = ["drift", pi_bundle, "--on", "kitchen", "--on", "cellar", "-c", file, "--data", many,
            "--images", "20"]  # fmt: skip
    matrix = edgecls(*both, "--json")

    found = json.loads(matrix.out)
    assert matrix.code == 0, matrix.err
    assert found["sources"] == [f"{pi_bundle} on kitchen", f"{pi_bundle} on cellar"]
    judged = edgecls(*both, "--json", "--reference", pi_bundle, "--max-drop", "50")
    assert [json.loads(line)["device"] for line in judged.out.splitlines()] == ["kitchen", "cellar"]
    assert judged.code == 0
    assert edgecls(*both, "--report", tmp_path / "r.json", "--reference", pi_bundle).code == 2
    other.stop()
    alone = edgecls(*both, "--json", "--reference", pi_bundle, "--max-drop", "50")
    codes = [json.loads(line)["exit_code"] for line in alone.out.splitlines()]
    assert (alone.code, codes) == (3, [0, 3])
    assert edgecls(*both).code == 3


def test_verify_and_doctor_ask_all_and_one_is_away(
    server: Server, other: Server, edgecls: Command, pi_bundle: Path, tmp_path: Path
) -> None:
    file = config(tmp_path, kitchen=server, cellar=other)
    both = ["--on", "kitchen", "--on", "cellar", "-c", file]
    verified = edgecls("verify", pi_bundle, "--json", *both)
    mine = json.loads(edgecls("verify", pi_bundle, "--json").out)
    lines = [json.loads(line) for line in verified.out.splitlines()]
    assert [line["device"] for line in lines] == ["kitchen", "cellar"]
    assert [line["result"]["samples"] for line in lines] == [mine["samples"]] * 2
    assert [line["exit_code"] for line in lines] == [verified.code] * 2

    other.stop()
    verified = edgecls("verify", pi_bundle, *both)
    assert verified.code == 3
    assert "cellar: cannot be reached: connection refused" in verified.err
    assert "golden/0.png" in verified.out

    looked = edgecls("doctor", "--json", *both)
    here_, away = (json.loads(line) for line in looked.out.splitlines())
    assert looked.code == 3
    assert {finding["name"] for finding in here_["result"]} >= {"python", "run raspberry-pi"}
    assert (away["result"], away["exit_code"]) == (None, 3)
    assert "cannot be reached" in away["error"]
    assert edgecls("doctor", "--on", "kitchen", "-c", file).code == 0
    assert edgecls("verify", pi_bundle, "--files-only", *both).code == 2


def test_a_device_that_computes_otherwise_fails_there(
    server: Server, edgecls: Command, pi_bundle: Path, tmp_path: Path, make_bundle: Any,
    tflite_float: bytes,
) -> None:  # fmt: skip
    from edgecls.bundle import Bundle, write_bundle

    bundle = Bundle(pi_bundle)
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    for sample in bundle.manifest.golden:
        for name in sample.logits.values():
            files[name] = files[name][4:] + files[name][:4]
    shutil.rmtree(pi_bundle)
    write_bundle(pi_bundle, bundle.manifest, files)

    done = edgecls("verify", pi_bundle, "--on", "kitchen", "-c", config(tmp_path, kitchen=server))

    assert done.code == 1
    assert "failed (model)" in done.out


def test_usage_errors(server: Server, edgecls: Command, pi_bundle: Path, tmp_path: Path) -> None:
    file = config(tmp_path, kitchen=server)
    unknown = edgecls("verify", pi_bundle, "--on", "hall", "-c", file)
    assert unknown.code == 2
    assert "no device is called 'hall'; there are: kitchen" in unknown.err
    password = edgecls("doctor", "--on", "ssh://pi:hunter2@kitchen")
    assert password.code == 2
    assert "hunter2" not in password.err
    two = edgecls("predict", pi_bundle, "x.png", "--save-logits", tmp_path / "x", "--on", "kitchen",
                  "--on", "cellar", "-c", file)  # fmt: skip
    assert two.code == 2
    assert edgecls("device", "clear").code == 2
    refused = edgecls("verify", pi_bundle, "--on", server.url)
    assert refused.code == 3
    assert "host key is not known" in refused.err


def test_a_wheel_is_installed_with_what_it_needs_and_used(
    wheel: Path, edgecls: Command, pi_bundle: Path, tmp_path: Path
) -> None:
    """On a device that has only Python; the packages come from the index that pip uses here."""
    pytest.importorskip("asyncssh")
    variables = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    pins = {"PIP_CONSTRAINT": str(ROOT / "constraints.txt")}
    bare = start(tmp_path / "bare", variables | pins)
    try:
        file = config(tmp_path, kitchen=bare)
        # No Python is named for this one: what is installed there is used.
        text = "\n".join(line for line in file.read_text().splitlines() if "python" not in line)
        file.write_text(text)
        there = ["--on", "kitchen", "-c", file]
        without = edgecls("verify", pi_bundle, *there)
        done = edgecls("device", "install", wheel, *there)
        looked = edgecls("doctor", "--json", *there)
        verified = edgecls("verify", pi_bundle, "--json", *there)
        again = edgecls("device", "install", wheel, *there)
        cleared = edgecls("device", "clear", *there, "--json")
        wrong = edgecls("device", "install", pi_bundle / "manifest.json", *there)
    finally:
        bare.stop()

    assert without.code == 3
    assert "has no edgecls; run: edgecls device install --on kitchen" in without.err
    assert (done.code, again.code) == (0, 0), done.err + again.err
    venv = str(bare.cache / "venv")
    assert f"{venv}/bin/python" in done.out
    findings = {finding["name"]: finding for finding in json.loads(looked.out)["result"]}
    assert f"{venv}/bin/python" in findings["python"]["detail"]
    assert findings["run raspberry-pi"]["detail"] == "with litert"
    found = json.loads(verified.out)
    assert (found["exit_code"], found["error"]) == (0, None), verified.out
    assert found["result"]["description"]["library"].startswith("ai-edge-litert ")
    installed = set(Path(venv).glob("lib/python3.*/site-packages/*"))
    assert {"numpy", "PIL", "ai_edge_litert", "edgecls"} <= {path.name for path in installed}
    assert not any(path.is_symlink() for path in installed)
    assert json.loads(cleared.out)["result"]["files"] > 1  # the bundle, and the wheel
    assert wrong.code == 4
    assert "expected a wheel of edgecls" in wrong.err


def test_a_debian_without_venv_is_told_what_to_install(
    wheel: Path, edgecls: Command, tmp_path: Path
) -> None:
    pytest.importorskip("asyncssh")
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "ensurepip.py").write_text("raise ModuleNotFoundError('ensurepip')")
    bare = start(tmp_path / "bare", {"PYTHONPATH": str(hidden)})
    try:
        file = config(tmp_path, kitchen=bare)
        done = edgecls("device", "install", wheel, "--on", "kitchen", "-c", file)
    finally:
        bare.stop()

    assert done.code == 3
    assert "cannot make environments; run there: sudo apt-get install python3-venv" in done.err
    assert not (bare.cache / "venv").exists()


@pytest.mark.parametrize(
    ("codes", "expected"),
    [([0, 0], 0), ([0, 5], 5), ([5, 1], 1), ([1, 4], 4), ([4, 2], 2), ([2, 3], 3), ([3, 70], 70),
     ([0, 99], 0), ([99], 70), ([], 0)],
)  # fmt: skip
def test_the_worst_exit_code(codes: list[int], expected: int) -> None:
    assert worst(codes) == expected


def test_the_emulated_pi_with_and_without_ssh(
    edgecls: Command, pi5: VirtualPi, pi_bundle: Path, photos: list[Path], tmp_path: Path
) -> None:
    """The Pi's Python, LiteRT and instruction set, at the other end of OpenSSH and directly."""
    pytest.importorskip("asyncssh")
    environment = pi5.environment({"EDGECLS_CACHE": str(tmp_path / "board/cache")})
    server = start(tmp_path / "board", environment)
    server.python = str(pi5.launchers / "python3")
    out, mine = tmp_path / "logits", tmp_path / "mine"
    predict = ["predict", pi_bundle, "--data", photos[0].parent, "--save-logits"]
    both = ["--on", "board", "--on", pi5.name, "-c", config(tmp_path, board=server)]
    try:
        verified = edgecls("verify", pi_bundle, *both, "--json")
        looked = edgecls("doctor", *both, "--json")
        done = edgecls(*predict, out, "--on", "board", "-c", both[-1])
    finally:
        server.stop()
    edgecls(*predict, mine)

    for line in verified.out.splitlines():
        assert json.loads(line)["result"]["description"]["xnnpack"] == "yes"
    for line in looked.out.splitlines():
        findings = {finding["name"]: finding for finding in json.loads(line)["result"]}
        assert "aarch64" in findings["machine"]["detail"]
    assert len(verified.out.splitlines()) == len(looked.out.splitlines()) == 2
    assert done.code == 4  # one of the photos is none
    there, here = LogitsFile(out), LogitsFile(mine)
    assert there.images == here.images
    digests = [digest for _, digest in there.images]
    assert (there.logits(digests) == here.logits(digests)).all()


def test_a_certificate_of_two_devices(
    server: Server, edgecls: Command, pi_bundle: Path, photos: list[Path], tmp_path: Path
) -> None:
    file, out = config(tmp_path, kitchen=server), tmp_path / "certificate.json"
    command = ["certify", pi_bundle, "--on", "here", "--on", "kitchen", "-c", file, "-o", out]
    made = edgecls(*command, "--data", photos[0].parent, "--json")
    written = out.read_bytes()
    out.unlink()
    server.stop()
    away = edgecls(*command)

    found = json.loads(made.out)
    assert made.out.encode() == written
    assert made.code == 5  # ten images show nothing
    assert [device["name"] for device in found["devices"]] == ["here", "kitchen"]
    assert found["pairs"][0]["identical"] is True
    assert {skipped["image"] for skipped in found["skipped"]} == {"broken.png"}
    assert "here: " in found["skipped"][0]["reason"]
    assert "kitchen: " in found["skipped"][0]["reason"]
    assert away.code == 3
    assert "no certificate" in away.err
    assert not out.exists()
