from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgecls.core.errors import DataError
from edgecls.data.dataset import open_dataset, open_splits
from edgecls.data.idx import read_idx, write_idx

FASHION = Path("/usr/share/datasets/fashion-mnist")


def save(folder: Path, prefix: str, images: np.ndarray, labels: np.ndarray, packed: bool) -> None:
    """Write a pair by the format's description alone."""
    for name, array in (("images-idx3", images), ("labels-idx1", labels)):
        data = bytes([0, 0, 8, array.ndim])
        data += b"".join(struct.pack(">I", size) for size in array.shape)
        data += array.tobytes()
        file = folder / f"{prefix}-{name}-ubyte{'.gz' if packed else ''}"
        file.write_bytes(gzip.compress(data) if packed else data)


def pair(count: int = 6) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(count)
    images = random.integers(0, 256, (count, 5, 4), np.uint8)
    return images, np.arange(count, dtype=np.uint8) % 10


@given(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=7)),
    st.booleans(),
)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, images, packed) -> None:
    folder = tmp_path_factory.mktemp("idx")
    labels = (np.arange(len(images)) % 256).astype(np.uint8)
    save(folder, "train", images, labels, packed)

    found = open_dataset(folder)

    assert found.pixels is not None
    assert (found.pixels[..., 0] == images).all()
    assert (found.labels == labels).all()
    suffix = ".gz" if packed else ""
    data = (folder / f"train-images-idx3-ubyte{suffix}").read_bytes()
    assert write_idx(images) == (gzip.decompress(data) if packed else data)


def test_splits_are_found(tmp_path: Path) -> None:
    save(tmp_path, "train", *pair(8), packed=True)
    save(tmp_path, "t10k", *pair(5), packed=False)

    found = open_splits(tmp_path)

    assert {name: len(part) for name, part in found.items()} == {"train": 8, "test": 5}
    assert list(found) == ["train", "test"]
    assert found["test"].classes == tuple("0123456789")
    with pytest.raises(DataError, match="several; name one of them: its splits are: train, test"):
        open_dataset(tmp_path)
    assert len(open_dataset(tmp_path, split="test")) == 5
    assert len(open_dataset(tmp_path / "t10k-images-idx3-ubyte")) == 5


def test_classes_may_have_another_order_but_no_other_names(tmp_path: Path) -> None:
    save(tmp_path, "train", *pair(3), packed=False)

    found = open_dataset(tmp_path, classes=("2", "x", "0", "1"))

    assert found.classes == ("2", "x", "0", "1")
    names = [found.classes[label] for label in found.labels.tolist()]
    assert names == [str(label) for label in pair(3)[1].tolist()]
    with pytest.raises(DataError, match="its class '0' is none of 3, which are a, b, c"):
        open_dataset(tmp_path, classes=("a", "b", "c"))


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda data: b"", "found an empty file"),
        (lambda data: data[:10], "expected an IDX file"),
        (lambda data: data[:-1], "only 119"),
        (lambda data: data + b"x", "more"),
        (lambda data: b"\0\0\x0d\3" + data[4:], "unsigned bytes with 3 axes"),
        (lambda data: data[:4] + b"\xff" * 12 + data[16:], "at most 4 GiB"),
    ],
    ids=["empty", "header", "short", "long", "floats", "huge"],
)
def test_damaged_files_are_refused(tmp_path: Path, damage, match: str) -> None:
    save(tmp_path, "train", *pair(), packed=False)
    file = tmp_path / "train-images-idx3-ubyte"
    file.write_bytes(damage(file.read_bytes()))

    with pytest.raises(DataError, match=match):
        open_dataset(tmp_path)


def test_a_packed_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    save(tmp_path, "train", *pair(), packed=True)
    file = tmp_path / "train-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-20])

    with pytest.raises(DataError, match="not a readable IDX file"):
        read_idx(file, 3)


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    save(tmp_path, "train", *pair(), packed=True)
    file = tmp_path / "train-images-idx3-ubyte.gz"
    data = gzip.decompress(file.read_bytes())
    file.write_bytes(gzip.compress(data + bytes(50_000_000)))

    with pytest.raises(DataError, match="found more"):
        read_idx(file, 3)


def test_labels_must_be_there_and_as_many(tmp_path: Path) -> None:
    images, labels = pair()
    save(tmp_path, "train", images, labels[:-1], packed=False)
    with pytest.raises(DataError, match="6 images, and 5 labels"):
        open_dataset(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="its labels are missing; expected train-labels-idx1-ubyte"):
        open_dataset(tmp_path)


@pytest.mark.skipif(not FASHION.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_fashion_mnist() -> None:
    found = open_splits(FASHION)

    train, test = found["train"], found["test"]
    assert (train.counts == 6000).all()
    assert (test.counts == 1000).all()
    assert train.labels[:10].tolist() == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]
    assert train.pixels is not None
    # The mean and deviation that everyone normalises these images with.
    assert train.pixels.mean() / 255 == pytest.approx(0.2860, abs=5e-5)
    assert train.pixels.std() / 255 == pytest.approx(0.3530, abs=5e-5)
