from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import msgspec
import pytest

from edgecls.core.errors import GraphError, MissingError
from edgecls.core.files import sha256_bytes
from edgecls.core.progress import Quiet
from edgecls.runtimes.engine_cache import EngineCache, EngineKey
from edgecls.runtimes.tensorrt_build import build_engine, tensorrt_rtx_available

KEY = EngineKey(
    gpu="Orin",
    compute_capability=(8, 7),
    tensorrt="tensorrt 10.3.0",
    onnx_sha256="ab" * 32,
    max_batch=8,
)


class Builder:
    """Counts what it builds."""

    def __init__(self) -> None:
        self.built = 0

    def __call__(self) -> bytes:
        self.built += 1
        return b"engine %d" % self.built


def test_an_engine_is_built_once(tmp_path: Path) -> None:
    build = Builder()

    found = [EngineCache(tmp_path / "new").get(KEY, build) for _ in range(3)]

    assert [kept.data for kept in found] == [b"engine 1"] * 3
    assert [kept.build_s is None for kept in found] == [False, True, True]
    assert {kept.path.read_bytes() for kept in found} == {b"engine 1"}
    assert build.built == 1


@pytest.mark.parametrize(
    "change",
    [
        {"gpu": "Thor"}, {"compute_capability": (11, 0)}, {"tensorrt": "tensorrt 10.13.3"},
        {"onnx_sha256": "cd" * 32}, {"max_batch": 1}, {"opt_batch": 8}, {"workspace_mb": 64},
        {"calibration_sha256": "ef" * 32},
    ],
)  # fmt: skip
def test_whatever_it_depends_on_makes_another(tmp_path: Path, change: dict[str, Any]) -> None:
    cache, build = EngineCache(tmp_path), Builder()
    cache.get(KEY, build)

    assert cache.get(msgspec.structs.replace(KEY, **change), build).data == b"engine 2"
    assert cache.get(KEY, build).data == b"engine 1"


@pytest.mark.parametrize("ending", ["engine", "json"])
@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "gone"])
def test_a_damaged_engine_is_built_again(tmp_path: Path, ending: str, damage: str) -> None:
    cache, build = EngineCache(tmp_path), Builder()
    cache.get(KEY, build)
    file = tmp_path / f"{KEY.name()}.{ending}"
    data = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes({"cut": data[:-2], "changed": b"x" + data[1:], "empty": b""}[damage])

    assert cache.get(KEY, build).data == b"engine 2"
    assert cache.get(KEY, build).data == b"engine 2"


def test_what_is_discarded_is_built_again(tmp_path: Path) -> None:
    cache, build = EngineCache(tmp_path), Builder()
    cache.get(KEY, build)

    cache.discard(KEY)
    cache.discard(KEY)

    assert cache.get(KEY, build).data == b"engine 2"


def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> bytes:
        raise GraphError("no")

    with pytest.raises(GraphError):
        EngineCache(tmp_path).get(KEY, fail)

    assert [file.suffix for file in tmp_path.iterdir()] == [".lock"]
    assert EngineCache(tmp_path).get(KEY, Builder()).data == b"engine 1"


SLOW_BUILD = """
import sys, time
from pathlib import Path
import msgspec
from edgecls.runtimes.engine_cache import EngineCache, EngineKey

folder, counter, key = sys.argv[1:]

def build():
    with open(counter, "a") as file:
        file.write("x")
    time.sleep(0.3)
    return b"engine"

key = msgspec.json.decode(key, type=EngineKey)
assert EngineCache(Path(folder)).get(key, build).data == b"engine"
"""


def test_processes_wait_for_each_other(tmp_path: Path) -> None:
    arguments = [tmp_path / "cache", tmp_path / "counter", msgspec.json.encode(KEY).decode()]
    workers = [subprocess.Popen([sys.executable, "-c", SLOW_BUILD, *arguments]) for _ in range(3)]

    assert [worker.wait(60) for worker in workers] == [0, 0, 0]
    assert (tmp_path / "counter").read_text() == "x"


OTHER = msgspec.structs.replace(KEY, onnx_sha256="cd" * 32)

# Dies in the middle of what its last argument says, without a chance to clean up.
KILLED = """
import os, signal, sys
from pathlib import Path
import msgspec
from edgecls.core import files
from edgecls.runtimes import engine_cache
from edgecls.runtimes.engine_cache import EngineCache, EngineKey

folder, key, moment = sys.argv[1:]

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def build():
    if moment == "build":
        die()
    return b"engine" * 1000

class HalfWritten:
    def __init__(self, file):
        self.file = file
    def __enter__(self):
        return self
    def __exit__(self, *rest):
        self.file.close()
    def write(self, data):
        self.file.write(data[: len(data) // 2])
        self.file.flush()
        die()

if moment == "write":
    fdopen = os.fdopen
    os.fdopen = lambda *arguments: HalfWritten(fdopen(*arguments))
if moment == "between":
    write = engine_cache.write_atomic
    engine_cache.write_atomic = lambda path, data: (
        die() if path.suffix == ".json" else write(path, data)
    )
EngineCache(Path(folder)).get(msgspec.json.decode(key, type=EngineKey), build)
"""


@pytest.mark.parametrize("moment", ["build", "write", "between"])
def test_a_process_that_is_killed_leaves_what_was_there(tmp_path: Path, moment: str) -> None:
    cache, build = EngineCache(tmp_path), Builder()
    cache.get(OTHER, build)
    key = msgspec.json.encode(KEY).decode()
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path, key, moment], check=False)

    assert done.returncode == -signal.SIGKILL
    assert cache.get(OTHER, build).data == b"engine 1"
    assert cache.get(KEY, build).data == b"engine 2"
    assert cache.get(KEY, build).data == b"engine 2"
    assert not list(tmp_path.glob(".*")), "what it had half written is gone"


FULL = """
import resource, sys
from pathlib import Path
import msgspec
from edgecls.core.errors import MissingError
from edgecls.runtimes.engine_cache import EngineCache, EngineKey

folder, key = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    EngineCache(Path(folder)).get(msgspec.json.decode(key, type=EngineKey), lambda: bytes(5000))
except MissingError as error:
    print(error)
"""


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    cache, build = EngineCache(tmp_path), Builder()
    cache.get(OTHER, build)
    key = msgspec.json.encode(KEY).decode()
    done = subprocess.run([sys.executable, "-c", FULL, tmp_path, key], capture_output=True,
                          text=True, check=True)  # fmt: skip

    assert "cannot be written (File too large)" in done.stdout
    assert "EDGECLS_CACHE" in done.stdout
    assert cache.get(OTHER, build).data == b"engine 1"
    assert cache.get(KEY, build).data == b"engine 2"
    assert not list(tmp_path.glob(".*"))


def numbered(number: int) -> EngineKey:
    return msgspec.structs.replace(KEY, onnx_sha256=f"{number:064x}")


def kept(cache: EngineCache, count: int) -> list[int]:
    return [n for n in range(count) if (cache.folder / f"{numbered(n).name()}.engine").exists()]


def used_at(cache: EngineCache, number: int, second: int) -> None:
    os.utime(cache.folder / f"{numbered(number).name()}.engine", (second, second))


def test_the_engine_whose_last_use_is_longest_ago_goes_first(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path, limit_bytes=250)
    for number in range(2):
        cache.get(numbered(number), lambda: bytes(100))
        used_at(cache, number, 1000 + number)
    cache.get(numbered(0), lambda: pytest.fail("it is there"))  # a use

    cache.get(numbered(2), lambda: bytes(100))
    assert kept(cache, 3) == [0, 2]

    used_at(cache, 0, 2000)
    used_at(cache, 2, 1000)
    cache.get(numbered(3), lambda: bytes(50))
    assert kept(cache, 4) == [0, 2, 3], "it fits"

    cache.get(numbered(4), lambda: bytes(1000))
    assert kept(cache, 5) == [4], "the newest stays, however large"
    assert cache.get(numbered(4), lambda: pytest.fail("it is there")).data == bytes(1000)


def test_an_engine_that_another_holds_stays(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path, limit_bytes=100)
    cache.get(numbered(0), lambda: bytes(80))

    with (tmp_path / f"{numbered(0).name()}.lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        cache.get(numbered(1), lambda: bytes(80))

    assert kept(cache, 2) == [0, 1]
    cache.get(numbered(2), lambda: bytes(80))
    assert kept(cache, 3) == [2]


class Letting(Quiet):
    """Lets go of a lock when it is told that somebody waits for it."""

    def __init__(self, lock: IO[bytes]) -> None:
        self.lock, self.said = lock, list[str]()

    def note(self, message: str) -> None:
        self.said.append(message)
        fcntl.flock(self.lock, fcntl.LOCK_UN)


def test_who_waits_says_so(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    with (tmp_path / f"{KEY.name()}.lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        progress = Letting(file)

        assert cache.get(KEY, Builder(), progress).data == b"engine 1"
        assert cache.get(KEY, Builder(), progress).data == b"engine 1"
    assert progress.said == ["waiting for another process, which has this engine"]


def test_a_folder_that_cannot_be_written_says_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(MissingError, match="EDGECLS_CACHE"):
        EngineCache(tmp_path / "file").get(KEY, Builder())


def test_an_engine_is_read_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device's file system is often mounted read-only once its engines are built."""
    cache, build = EngineCache(tmp_path), Builder()
    cache.get(KEY, build)
    cache._path(KEY.name(), "lock").unlink()

    def refuse(self: Path, *arguments: object, **options: object) -> object:
        raise OSError(errno.EROFS, "Read-only file system", str(self))

    real = Path.open
    monkeypatch.setattr(
        Path, "open", lambda self, mode="r", *a, **o: (refuse if "w" in mode else real)(
            self, mode, *a, **o
        )
    )  # fmt: skip
    monkeypatch.setattr(os, "utime", refuse)

    assert cache.get(KEY, build).build_s is None
    assert build.built == 1


def test_what_cannot_be_evicted_does_not_cost_the_new_engine(tmp_path: Path) -> None:
    cache, build = EngineCache(tmp_path, limit_bytes=1), Builder()
    cache.get(KEY, build)
    lock = cache._path(KEY.name(), "lock")
    lock.unlink()
    lock.mkdir()  # as another user's file: it cannot be opened
    other = msgspec.structs.replace(KEY, gpu="Thor")

    assert cache.get(other, build).data == b"engine 2"
    assert cache.get(KEY, build).data == b"engine 1"


def test_the_folder_comes_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGECLS_CACHE", str(tmp_path))
    assert EngineCache().folder == tmp_path / "engines"
    monkeypatch.delenv("EDGECLS_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert EngineCache().folder == tmp_path / "home" / ".cache" / "edgecls" / "engines"


@pytest.mark.skipif(tensorrt_rtx_available() is None, reason="TensorRT-RTX is not installed")
def test_a_real_engine_comes_back_whole(tmp_path: Path, onnx_float: bytes) -> None:
    key = msgspec.structs.replace(KEY, onnx_sha256=sha256_bytes(onnx_float))
    built = EngineCache(tmp_path).get(key, lambda: build_engine(onnx_float, api="tensorrt-rtx"))

    assert len(built.data) > 1000
    assert EngineCache(tmp_path).get(key, Builder()).data == built.data
