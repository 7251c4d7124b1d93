from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgecls.core.files import (
    atomic_directory,
    exchange_in_steps,
    remove_directory,
    sha256_bytes,
    sha256_file,
    write_atomic,
)


def contents(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in sorted(folder.iterdir())}


def test_a_device_or_pipe_is_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    with pytest.raises(FileExistsError, match="is a device or pipe"):
        write_atomic(pipe, b"one")
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_write_atomic_replaces_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.bin"
    write_atomic(target, b"one")
    write_atomic(target, b"two")

    assert target.read_bytes() == b"two"
    assert [child.name for child in target.parent.iterdir()] == ["file.bin"]


def test_hashes_agree(tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    (tmp_path / "file").write_bytes(data)

    assert sha256_file(tmp_path / "file") == sha256_bytes(data)


def test_directory_appears_when_the_block_ends(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with atomic_directory(out) as folder:
        (folder / "a").write_text("1")
        assert not out.exists()

    assert contents(out) == {"a": "1"}
    assert [child.name for child in tmp_path.iterdir()] == ["out"]


def test_an_error_leaves_the_old_directory(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with atomic_directory(out) as folder:
        (folder / "a").write_text("old")

    def write_and_fail() -> None:
        with atomic_directory(out) as folder:
            (folder / "a").write_text("new")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_and_fail()

    assert contents(out) == {"a": "old"}
    assert [child.name for child in tmp_path.iterdir()] == ["out"]


def test_a_file_in_the_way_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with (
        pytest.raises(FileExistsError, match="no folder"),
        atomic_directory(tmp_path / "out") as folder,
    ):
        (folder / "a").write_text("1")

    assert (tmp_path / "out").read_text() == "mine"


WRITER = """
import sys
from pathlib import Path
from edgecls.core.files import atomic_directory
count = 0
while True:
    count += 1
    with atomic_directory(Path(sys.argv[1])) as folder:
        for name in "abcd":
            (folder / name).write_text(str(count))
    print(count, flush=True)
"""


@pytest.mark.parametrize("seed", range(6))
def test_a_kill_at_any_moment_leaves_a_whole_directory_or_none(tmp_path: Path, seed: int) -> None:
    out = tmp_path / "out"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(out)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(random.Random(seed).uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.wait()
    left = contents(out) if out.exists() else {}
    assert not left or (len(left) == 4 and len(set(left.values())) == 1)

    with atomic_directory(out) as folder:
        (folder / "a").write_text("next")

    assert contents(out) == {"a": "next"}
    assert [child.name for child in tmp_path.iterdir()] == ["out"], "leftovers are removed"


def test_no_space_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "file"
    write_atomic(target, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="too large") as error:
            write_atomic(target, b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)

    assert error.value.filename == str(target)
    assert target.read_bytes() == b"old"
    assert [child.name for child in tmp_path.iterdir()] == ["file"]


def test_a_folder_is_removed_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "work"
    (folder / "deep").mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr("edgecls.core.files.shutil.rmtree", lambda path: None)
        remove_directory(folder)  # as a kill leaves it, which the next removal takes away
    (left,) = tmp_path.iterdir()
    gone = left.rename(left.with_name(left.name.replace(str(os.getpid()), "4194999")))
    folder.mkdir()
    remove_directory(folder)

    assert gone.name.startswith(".work.")
    assert list(tmp_path.iterdir()) == []


READER = """
import sys
from pathlib import Path
missing = 0
for _ in range(20000):
    try:
        (Path(sys.argv[1]) / "a").read_text()
    except FileNotFoundError:
        missing += 1
print(missing)
"""


def test_several_writers_and_a_reader_never_meet_a_gap(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with atomic_directory(out) as folder:
        (folder / "a").write_text("0")
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(out)], stdout=subprocess.DEVNULL)
        for _ in range(2)
    ]
    try:
        done = subprocess.run(
            [sys.executable, "-c", READER, str(out)], capture_output=True, text=True, check=True
        )
        assert all(writer.poll() is None for writer in writers), "no writer failed"
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()

    assert done.stdout.strip() == "0"
    assert len(set(contents(out).values())) == 1


def test_two_folders_change_places_without_the_system_call(tmp_path: Path) -> None:
    for name in ("new.tmp", "out"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text(name)
    exchange_in_steps(tmp_path / "new.tmp", tmp_path / "out")

    assert contents(tmp_path / "out") == {"a": "new.tmp"}
    assert contents(tmp_path / "new.tmp") == {"a": "out"}


def test_what_a_kill_left_aside_comes_back(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    aside = tmp_path / f".out.{process.pid}.x.old.tmp"
    aside.mkdir()
    (aside / "a").write_text("old")

    def write_and_fail() -> None:
        with atomic_directory(tmp_path / "out"):
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_and_fail()

    assert contents(tmp_path / "out") == {"a": "old"}
