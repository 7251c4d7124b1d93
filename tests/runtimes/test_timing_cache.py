from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgecls.core.progress import Quiet
from edgecls.runtimes.engine_cache import EngineCache
from edgecls.runtimes.timing_cache import TimingCache

HERE: dict[str, Any] = {
    "gpu": "Orin", "compute_capability": (8, 7), "tensorrt": "tensorrt 10.3.0",
}  # fmt: skip


class Notes(Quiet):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, message: str) -> None:
        self.said.append(message)


def test_timings_come_back(tmp_path: Path) -> None:
    notes = Notes()
    cache = TimingCache(tmp_path / "new", **HERE)

    assert cache.read(notes) == b""
    cache.write(b"one\ntwo\n", notes)
    assert TimingCache(tmp_path / "new", **HERE).read(notes) == b"one\ntwo\n"
    cache.write(b"three", notes)
    assert cache.read(notes) == b"three"
    assert not notes.said


@pytest.mark.parametrize(
    "change",
    [{"gpu": "Thor"}, {"compute_capability": (11, 0)}, {"tensorrt": "tensorrt 10.13.3"}],
)
def test_another_gpu_or_tensorrt_has_timings_of_its_own(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    notes = Notes()
    TimingCache(tmp_path, **HERE).write(b"mine", notes)
    other = TimingCache(tmp_path, **{**HERE, **change})

    assert other.read(notes) == b""
    other.write(b"theirs", notes)
    assert TimingCache(tmp_path, **HERE).read(notes) == b"mine"
    # A file that was copied to another's name is not taken.
    other.path.write_bytes(TimingCache(tmp_path, **HERE).path.read_bytes())
    assert other.read(notes) == b""
    assert len(notes.said) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"", lambda data: data[:-1], lambda data: data[:20], lambda data: data + b"x",
        lambda data: data.replace(b"\n", b""), lambda data: b"\xff\x00" * 50,
        lambda data: data.replace(b"Orin", b"Thor"),
    ],
    ids=["empty", "cut", "cut in the header", "longer", "one line", "noise", "another's"],
)  # fmt: skip
def test_damaged_timings_are_left_with_a_notice(tmp_path: Path, damage: Any) -> None:
    notes = Notes()
    cache = TimingCache(tmp_path, **HERE)
    cache.write(b"timings", notes)
    cache.path.write_bytes(damage(cache.path.read_bytes()))

    assert cache.read(notes) == b""
    assert len(notes.said) == 1
    assert str(cache.path) in notes.said[0]
    cache.write(b"new", notes)
    assert cache.read(notes) == b"new"


def test_timings_that_cannot_be_kept_do_not_stop_a_build(tmp_path: Path) -> None:
    notes = Notes()
    (tmp_path / "file").write_bytes(b"")
    cache = TimingCache(tmp_path / "file", **HERE)

    assert cache.read(notes) == b""
    cache.write(b"timings", notes)

    assert len(notes.said) == 2
    assert "takes as long" in notes.said[1]


def test_engines_leave_timings_alone(tmp_path: Path) -> None:
    cache = TimingCache(tmp_path, **HERE)
    cache.write(b"timings", Quiet())
    engines = EngineCache(tmp_path, limit_bytes=1)
    engines._evict("")

    assert cache.read(Quiet()) == b"timings"
