from __future__ import annotations

import contextlib
import os
import pickle  # noqa: TID251 - written, to be read by ours
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecls.core.errors import DataError
from edgecls.data.safe_pickle import read_pickle


class Calls:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("nested", [False, True])
def test_code_is_not_run(tmp_path: Path, protocol: int, nested: bool) -> None:
    trap = tmp_path / "it ran"
    call = Calls(os.mkdir, str(trap))
    (tmp_path / "x").write_bytes(pickle.dumps({b"data": call} if nested else call, protocol))

    with pytest.raises(DataError, match="not a python batch that is safe to read: it would call"):
        read_pickle(tmp_path / "x")
    assert not trap.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"cnumpy\nndarray.__init__\n.",
        b"ccodecs\nencode\n.",
        b"c_codecs\nencode\n(S'a'\nS'rot13'\ntR.",
        b"cnumpy.core.multiarray\n_reconstruct\n.",
        b"cnumpy.core.multiarray\n_reconstruct\n(tR(K\x01(K\x09tcnumpy\ndtype\n(S'O'\ntRI00\nS'x'\ntb.",
        b"\x80\x02(lp0\ng0\na.",
        b"P1\n.",
        b"",
        b"\x80\x09.",
        b"garbage",
    ],
)
def test_hostile_pickles_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)

    with pytest.raises(DataError):
        read_pickle(tmp_path / "x")


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(pickle.dumps(np.asarray([1, "a"], object)))

    with pytest.raises(DataError, match="expected numbers"):
        read_pickle(tmp_path / "x")


def test_an_array_shorter_than_it_says_is_refused(tmp_path: Path) -> None:
    data = pickle.dumps(np.arange(6, dtype=np.uint8), 2)
    assert data.count(b"K\x06\x85") == 1
    (tmp_path / "x").write_bytes(data.replace(b"K\x06\x85", b"K\x60\x85"))

    with pytest.raises(DataError, match="6 bytes for an array of shape"):
        read_pickle(tmp_path / "x")


@pytest.mark.parametrize("dtype", ["<u1", "<i8", ">i4", "<f4", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_come_back(tmp_path: Path, dtype: str, order: Any) -> None:
    array = np.asarray(np.arange(12).reshape(3, 4), dtype, order=order)
    for protocol in (0, 2, 4, 5):
        (tmp_path / "x").write_bytes(pickle.dumps([array], protocol))

        (found,) = read_pickle(tmp_path / "x")

        assert found.dtype == array.dtype
        assert found.shape == array.shape
        assert (found == array).all()


SINGLE = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)


@given(st.recursive(
    SINGLE | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.binary() | st.integers(), inner),
    max_leaves=20,
))  # fmt: skip
def test_plain_values_come_back(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    file = tmp_path_factory.mktemp("pickle") / "x"
    for protocol in (2, 5):
        file.write_bytes(pickle.dumps(value, protocol))
        assert read_pickle(file) == value


@given(st.binary(max_size=60))
def test_no_bytes_do_anything_else_than_fail(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    file = tmp_path_factory.mktemp("pickle") / "x"
    file.write_bytes(data)

    with contextlib.suppress(DataError):
        read_pickle(file)
