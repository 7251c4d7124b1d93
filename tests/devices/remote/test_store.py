"""The store, as a device runs it: its text, by a Python that has nothing of ours."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from edgecls.devices.remote import store

TEXT = Path(store.__file__).read_text()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("EDGECLS_CACHE", str(folder))
    return folder


def run(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", TEXT, *arguments], input=stdin, capture_output=True,
        check=False,
    )  # fmt: skip


def ask(*arguments: str, stdin: bytes = b"") -> Any:
    done = run(*arguments, stdin=stdin)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def frame(name: str, data: bytes, sha256: str | None = None) -> bytes:
    return json.dumps([name, sha256 or digest(data), len(data)]).encode() + b"\n" + data


def missing(*files: tuple[str, bytes]) -> Any:
    return ask("missing", stdin=json.dumps([[name, digest(data)] for name, data in files]).encode())


def test_what_is_sent_is_there(cache: Path) -> None:
    files = [
        ("images/a.png", b"one"),
        ("bundles/x/golden/a b\n'$(c).png", bytes(range(256)) * 9000),
        ("images/empty", b""),
    ]
    assert missing(*files) == [name for name, _ in files]

    assert ask("receive", stdin=b"".join(frame(*file) for file in files)) == 3

    assert missing(*files) == []
    for name, data in files:
        assert (cache / name).read_bytes() == data
        assert (cache / name).stat().st_mode & 0o077 == 0


def test_content_counts_and_not_the_name(cache: Path) -> None:
    ask("receive", stdin=frame("images/a", b"right"))
    (cache / "images/a").write_bytes(b"wrong")

    assert missing(("images/a", b"right")) == ["images/a"]
    ask("receive", stdin=frame("images/a", b"right"))
    assert missing(("images/a", b"right")) == []


@pytest.mark.parametrize(
    ("stdin", "message"),
    [
        (frame("images/a", b"all of it")[:-3], b"ended too early"),
        (frame("images/a", b"changed", digest(b"before")), b"changed while it was sent"),
    ],
)
def test_what_is_broken_off_is_not_there(cache: Path, stdin: bytes, message: bytes) -> None:
    done = run("receive", stdin=stdin)

    assert done.returncode == 1
    assert message in done.stderr
    assert list((cache / "images").iterdir()) == []


def test_a_kill_leaves_nothing_under_the_name(cache: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", TEXT, "receive"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    assert process.stdin is not None
    process.stdin.write(frame("images/a", bytes(4 << 20))[: 3 << 20])
    process.stdin.flush()
    while not list(cache.glob("images/.*")):
        time.sleep(0.01)
    process.kill()
    process.wait()
    process.stdin.close()

    assert not (cache / "images/a").exists()
    assert missing(("images/a", bytes(4 << 20))) == ["images/a"]


@pytest.mark.parametrize(
    "name",
    ["../a", "images/../../a", "/etc/a", "images", "images/", "images//a", "venv/bin/python", "",
     "a", "images/./a", "images/a\0"],
)  # fmt: skip
def test_a_name_cannot_leave(cache: Path, name: str) -> None:
    assert run("receive", stdin=frame(name, b"x")).returncode == 1
    assert run("fetch", name.replace("\0", "")).returncode == 1
    assert not cache.exists()


def test_fetch_gives_a_file_once(cache: Path) -> None:
    ask("receive", stdin=frame("logits/a", b"\0\xff\n"))

    assert run("fetch", "logits/a").stdout == b"\0\xff\n"
    assert not (cache / "logits/a").exists()
    assert run("fetch", "logits/a").returncode == 1


def test_the_longest_unused_goes_first(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    for index in range(4):
        file = cache / "images" / str(index)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(100))
        os.utime(file, (now - 100 * index,) * 2)

    assert store.prune(250, now - 50) == (2, 200)
    assert sorted(file.name for file in cache.glob("images/*")) == ["0", "1"]
    assert store.prune(0, now - 50) == (1, 100)
    assert store.prune(0, now - 50) == (0, 0)  # what is in use stays, however much it is


def test_asking_marks_as_used(cache: Path) -> None:
    ask("receive", stdin=frame("images/a", b"x"))
    os.utime(cache / "images/a", (1, 1))

    missing(("images/a", b"x"))

    assert (cache / "images/a").stat().st_mtime > time.time() - 60


def test_clear_keeps_what_is_installed(cache: Path) -> None:
    ask("receive", stdin=frame("images/a", b"x") + frame("bundles/b/c/d", b"yy"))
    (cache / "venv").mkdir()
    (cache / "venv/python").write_text("")

    assert ask("clear") == {"files": 2, "bytes": 3}
    assert [path.name for path in cache.iterdir()] == ["venv"]
    assert ask("clear") == {"files": 0, "bytes": 0}


def test_it_says_what_is_installed(cache: Path) -> None:
    found = ask("about")
    assert found == {
        "cache": str(cache), "python": sys.executable, "edgecls": found["edgecls"],
        "version": ".".join(map(str, sys.version_info[:3])),
    }  # fmt: skip
    python = cache / "venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho 3.12.1 9.9\n")
    python.chmod(0o755)

    found = ask("about")
    assert (found["python"], found["version"], found["edgecls"]) == (str(python), "3.12.1", "9.9")
    assert ask("about", "--own")["python"] == sys.executable


def test_a_checkout_in_the_home_folder_is_not_taken(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "home/edgecls/core"
    fake.mkdir(parents=True)
    for folder in (fake.parent, fake):
        (folder / "__init__.py").touch()
    (fake / "version.py").write_text("VERSION = 'fake'\n")
    monkeypatch.chdir(tmp_path / "home")

    assert ask("about")["edgecls"] != "fake"


def test_an_unknown_command_is_an_error(cache: Path) -> None:
    assert run("nothing").returncode == 1
