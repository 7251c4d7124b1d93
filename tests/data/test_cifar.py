from __future__ import annotations

import pickle  # noqa: TID251 - written, to be read by ours
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgecls.core.errors import DataError
from edgecls.data.dataset import open_dataset, open_splits

ROWS = hnp.arrays(np.uint8, st.tuples(st.integers(1, 4), st.just(3072)))


def rows(count: int = 3) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 3072), np.uint8)


def image(row: np.ndarray) -> np.ndarray:
    """Return a row's image: 1024 red codes, row by row, then green, then blue."""
    out = np.zeros((32, 32, 3), np.uint8)
    for channel in range(3):
        for y in range(32):
            start = 1024 * channel + 32 * y
            out[y, :, channel] = row[start : start + 32]
    return out


@given(ROWS, st.data())
def test_binary_records_are_read(tmp_path_factory: pytest.TempPathFactory, table, data) -> None:
    folder = tmp_path_factory.mktemp("cifar")
    labels = data.draw(st.lists(st.integers(0, 9), min_size=len(table), max_size=len(table)))
    records = [bytes([label]) + row.tobytes() for label, row in zip(labels, table, strict=True)]
    (folder / "test_batch.bin").write_bytes(b"".join(records))

    found = open_dataset(folder)

    assert found.labels.tolist() == labels
    assert found.classes[3] == "cat"
    assert found.pixels is not None
    for row, pixels in zip(table, found.pixels, strict=True):
        assert (pixels == image(row)).all()


def test_five_batches_are_one_training_set(tmp_path: Path) -> None:
    for number in range(1, 6):
        record = bytes([number]) + rows(1)[0].tobytes()
        (tmp_path / f"data_batch_{number}.bin").write_bytes(record)
    (tmp_path / "test_batch.bin").write_bytes(bytes([9]) + bytes(3072))
    (tmp_path / "batches.meta.txt").write_text("\n".join("abcdefghij") + "\n\n")

    found = open_splits(tmp_path)

    assert found["train"].labels.tolist() == [1, 2, 3, 4, 5]
    assert found["test"].labels.tolist() == [9]
    assert found["train"].classes == tuple("abcdefghij")
    assert open_dataset(tmp_path / "data_batch_4.bin").labels.tolist() == [4]


def test_a_batch_that_is_missing_is_said(tmp_path: Path) -> None:
    for number in (1, 2, 4, 5):
        (tmp_path / f"data_batch_{number}.bin").write_bytes(bytes(3073))

    with pytest.raises(DataError, match=r"data_batch_3\.bin of CIFAR-10's five is missing"):
        open_dataset(tmp_path)


def test_cifar_100_takes_the_fine_label(tmp_path: Path) -> None:
    (tmp_path / "train.bin").write_bytes(bytes([7, 42]) + bytes(3072))

    found = open_dataset(tmp_path)

    assert found.labels.tolist() == [42]
    assert len(found.classes) == 100


@pytest.mark.parametrize("size", [0, 3072, 3074])
def test_records_that_are_cut_off_are_refused(tmp_path: Path, size: int) -> None:
    (tmp_path / "test_batch.bin").write_bytes(bytes(size))

    with pytest.raises(DataError, match=f"expected records of 3073 bytes, found {size} bytes"):
        open_dataset(tmp_path)


def test_a_class_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "test_batch.bin").write_bytes(bytes([10]) + bytes(3072))

    with pytest.raises(DataError, match="holds class 10, expected 0"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_python_batches_of_every_protocol(tmp_path: Path, protocol: int) -> None:
    table = rows(4)
    batch = {b"batch_label": b"x", b"labels": [3, 1, 4, 1], b"data": table, b"filenames": [b"a"]}
    (tmp_path / "test_batch").write_bytes(pickle.dumps(batch, protocol))
    (tmp_path / "batches.meta").write_bytes(
        pickle.dumps({b"label_names": [f"class {i}".encode() for i in range(10)]}, protocol)
    )

    found = open_dataset(tmp_path)

    assert found.labels.tolist() == [3, 1, 4, 1]
    assert found.classes[9] == "class 9"
    assert found.pixels is not None
    assert (found.pixels[2] == image(table[2])).all()


def test_a_batch_as_python_2_wrote_it(tmp_path: Path) -> None:
    """The opcodes of the published files: 8-bit strings, numpy.core.multiarray, protocol 2."""
    table = rows(1)
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x01M\x00\x0c\x86"
        b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89T" + (3072).to_bytes(4, "little") + table.tobytes() + b"tb"
    )
    data = b"\x80\x02}(U\x04data" + array + b"U\x06labels](K\x06eu."
    (tmp_path / "test_batch").write_bytes(data)

    found = open_dataset(tmp_path)

    assert found.labels.tolist() == [6]
    assert found.pixels is not None
    assert (found.pixels[0] == image(table[0])).all()


def test_cifar_100_in_python(tmp_path: Path) -> None:
    batch = {b"data": rows(2), b"fine_labels": [99, 0], b"coarse_labels": [1, 2]}
    (tmp_path / "train").write_bytes(pickle.dumps(batch))
    (tmp_path / "meta").write_bytes(
        pickle.dumps({b"fine_label_names": [str(i) for i in range(100)]})
    )

    found = open_dataset(tmp_path)

    assert found.labels.tolist() == [99, 0]
    assert len(found.classes) == 100


@pytest.mark.parametrize(
    "batch",
    [
        [1, 2],
        {b"data": rows(2)},
        {b"data": rows(2), b"labels": [1]},
        {b"data": rows(2).astype(np.float32), b"labels": [1, 2]},
        {b"data": rows(2)[:, :-1], b"labels": [1, 2]},
        {b"data": rows(2), b"labels": [1, -2]},
        {b"data": rows(2), b"labels": [1, "2"]},
    ],
    ids=["list", "no labels", "fewer", "floats", "columns", "negative", "text"],
)
def test_other_pickles_are_refused(tmp_path: Path, batch: object) -> None:
    (tmp_path / "test_batch").write_bytes(pickle.dumps(batch))

    with pytest.raises(DataError, match="as CIFAR's python batches are"):
        open_dataset(tmp_path)


def test_both_forms_in_one_folder_are_ambiguous(tmp_path: Path) -> None:
    (tmp_path / "test_batch.bin").write_bytes(bytes(3073))
    (tmp_path / "test_batch").write_bytes(pickle.dumps({b"data": rows(1), b"labels": [1]}))

    with pytest.raises(DataError, match="CIFAR-10's binary files and CIFAR-10's python files"):
        open_dataset(tmp_path)
