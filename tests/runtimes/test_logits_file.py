"""Files of logits: exact, whole or refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecls.core.errors import DataError
from edgecls.core.preprocess import PRESETS
from edgecls.runtimes.logits_file import LogitsFile, LogitsHeader, is_logits_file, write_logits

HEADER = LogitsHeader(
    classes=3, preprocess=PRESETS["mnist"], labels=("a", "b", "c"), synsets=None,
    target="raspberry-pi", precision="int8", backend="litert", description={"litert": "2"},
    bundle_sha256="0" * 64, artefact="model.tflite", tool="0",
)  # fmt: skip
ROWS = np.asarray([[1.5, -2, 3e-38], [0.1, 1e30, -0.0]], np.float32)
HASHES = [hashlib.sha256(bytes([index])).hexdigest() for index in range(3)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "pi.logits"
    with write_logits(path, HEADER) as writer:
        writer.add("x/1.png", HASHES[0], ROWS[0].tolist())
        writer.add_error("x/bad.png", "not an image")
        writer.add("x/é\n2.png", HASHES[1], ROWS[1].tolist())
    return path


def test_what_is_written_is_read_to_the_bit(file: Path) -> None:
    found = LogitsFile(file)

    assert found.header == HEADER
    assert found.images == [("x/1.png", HASHES[0]), ("x/é\n2.png", HASHES[1])]
    assert found.errors == [("x/bad.png", "not an image")]
    assert found.logits([HASHES[1], HASHES[0]]).tobytes() == ROWS[::-1].tobytes()
    assert HASHES[0] in found
    assert HASHES[2] not in found
    assert is_logits_file(file)


def test_nothing_is_left_where_the_work_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), write_logits(tmp_path / "f", HEADER) as writer:  # noqa: PT012
        writer.add("a", HASHES[0], [1, 2, 3])
        raise RuntimeError

    assert not list(tmp_path.iterdir())


def test_rows_of_another_length(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="expected 3 logits"),
        write_logits(tmp_path / "f", HEADER) as writer,
    ):
        writer.add("a", HASHES[0], [1, 2])


@given(st.data())
@settings(max_examples=60)
def test_every_cut_and_every_changed_byte_is_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("logits") / "f"
    with write_logits(path, HEADER) as writer:
        writer.add("a", HASHES[0], [1, 2, 3])
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        path.write_bytes(whole[:place])
    else:
        changed = bytearray(whole)
        changed[place] ^= data.draw(st.integers(1, 255))
        path.write_bytes(bytes(changed))

    with pytest.raises(DataError, match="logits"):
        LogitsFile(path)


@pytest.mark.parametrize("content", [b"", b"EDGECLS-LOGITS 1\n", b"EDGECLS-LOGITS 1\n{}\n", b"PK"])
def test_no_file_of_logits(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(DataError):
        LogitsFile(tmp_path / "f")


def test_a_file_without_images_is_of_no_use(tmp_path: Path) -> None:
    with write_logits(tmp_path / "f", HEADER):
        pass
    with pytest.raises(DataError, match="no image"):
        LogitsFile(tmp_path / "f")
