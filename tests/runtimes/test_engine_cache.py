from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgecls.core.errors import GraphError, MissingError
from edgecls.core.files import sha256_bytes
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

    assert found == [b"engine 1"] * 3
    assert build.built == 1


@pytest.mark.parametrize(
    "change",
    [
        {"gpu": "Thor"}, {"compute_capability": (11, 0)}, {"tensorrt": "tensorrt 10.13.3"},
        {"onnx_sha256": "cd" * 32}, {"max_batch": 1},
    ],
)  # fmt: skip
def test_whatever_it_depends_on_makes_another(tmp_path: Path, change: dict[str, Any]) -> None:
    cache, build = EngineCache(tmp_path), Builder()
    cache.get(KEY, build)

    assert cache.get(msgspec.structs.replace(KEY, **change), build) == b"engine 2"
    assert cache.get(KEY, build) == b"engine 1"


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

    assert cache.get(KEY, build) == b"engine 2"
    assert cache.get(KEY, build) == b"engine 2"


def test_what_is_discarded_is_built_again(tmp_path: Path) -> None:
    cache, build = EngineCache(tmp_path), Builder()
    cache.get(KEY, build)

    cache.discard(KEY)
    cache.discard(KEY)

    assert cache.get(KEY, build) == b"engine 2"


def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> bytes:
        raise GraphError("no")

    with pytest.raises(GraphError):
        EngineCache(tmp_path).get(KEY, fail)

    assert [file.suffix for file in tmp_path.iterdir()] == [".lock"]
    assert EngineCache(tmp_path).get(KEY, Builder()) == b"engine 1"


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
assert EngineCache(Path(folder)).get(key, build) == b"engine"
"""


def test_processes_wait_for_each_other(tmp_path: Path) -> None:
    arguments = [tmp_path / "cache", tmp_path / "counter", msgspec.json.encode(KEY).decode()]
    workers = [subprocess.Popen([sys.executable, "-c", SLOW_BUILD, *arguments]) for _ in range(3)]

    assert [worker.wait(60) for worker in workers] == [0, 0, 0]
    assert (tmp_path / "counter").read_text() == "x"


def test_a_folder_that_cannot_be_written_says_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(MissingError, match="EDGECLS_CACHE"):
        EngineCache(tmp_path / "file").get(KEY, Builder())


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

    assert len(built) > 1000
    assert EngineCache(tmp_path).get(key, Builder()) == built
