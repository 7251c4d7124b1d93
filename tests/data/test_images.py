"""Listing and choosing images; streaming their pixels."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import re
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgecls.core.errors import DataError, ImageError
from edgecls.core.files import sha256_file
from edgecls.core.preprocess import PRESETS, Preprocess
from edgecls.data.images import ImageFile, list_images, select_images
from edgecls.data.stream import stream_pixels
from edgecls.runtimes.preprocess import to_pixels


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def names(images: tuple[ImageFile, ...]) -> list[str]:
    return [image.name for image in images]


def test_flat_and_by_class(tmp_path: Path) -> None:
    touch(tmp_path, "b.JPG", "cat/2.png", "cat/deep/3.webp", "a.jpeg", "dog/1.TIFF", "cat/1.bmp")

    images = list_images(tmp_path)

    assert names(images) == [
        "a.jpeg",
        "b.JPG",
        "cat/1.bmp",
        "cat/2.png",
        "cat/deep/3.webp",
        "dog/1.TIFF",
    ]
    assert [image.folder for image in images] == ["", "", "cat", "cat", "cat", "dog"]
    assert [image.path for image in images] == [tmp_path / name for name in names(images)]


def test_what_is_left_out(tmp_path: Path) -> None:
    touch(
        tmp_path, "ok.gif", ".hidden.jpg", "._ok.gif", ".cache/x.jpg", "notes.txt", "dir.jpg/.keep"
    )
    touch(tmp_path, "noextension", "cat/._1.jpg", "cat/Thumbs.db", "dir.jpg/inside.ppm")

    assert names(list_images(tmp_path)) == ["dir.jpg/inside.ppm", "ok.gif"]


@pytest.mark.parametrize("form", ["missing", "empty", "file", "no images"])
def test_nothing_to_find(tmp_path: Path, form: str) -> None:
    folder = tmp_path / "data"
    if form == "file":
        folder.write_bytes(b"x")
    elif form != "missing":
        folder.mkdir()
        if form == "no images":
            touch(folder, "a.txt", "b/c.npy")

    with pytest.raises(
        DataError, match="no images; looked for" if folder.is_dir() else "no folder"
    ):
        list_images(folder)


def test_loops_of_links_end(tmp_path: Path) -> None:
    touch(tmp_path, "data/cat/1.png", "other/9.png")
    (tmp_path / "data/cat/loop").symlink_to(tmp_path / "data", target_is_directory=True)
    (tmp_path / "data/self").symlink_to(tmp_path / "data/self")
    (tmp_path / "data/linked").symlink_to(tmp_path / "other", target_is_directory=True)
    (tmp_path / "data/broken.png").symlink_to(tmp_path / "nowhere.png")

    assert names(list_images(tmp_path / "data")) == ["broken.png", "cat/1.png", "linked/9.png"]


def test_name_that_is_not_utf8(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/\xff.png"
    try:
        Path(os.fsdecode(raw)).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system refuses such names")

    (image,) = list_images(tmp_path)

    assert image.name == r"\udcff.png"
    assert image.path.read_bytes() == b"x"
    assert select_images([image], 1, 0) == (image,)


def listing(count: int) -> list[ImageFile]:
    return [ImageFile(path=Path(f"{i}.png"), name=f"{i}.png") for i in range(count)]


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 99), st.randoms())
def test_choice_does_not_depend_on_the_order(
    count: int, wanted: int, seed: int, random: object
) -> None:
    images = listing(count)
    shuffled = list(images)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    ranks = {i.name: hashlib.sha256(f"{seed}:{i.name}".encode()).hexdigest() for i in images}
    expected = sorted(sorted(ranks, key=lambda name: ranks[name])[:wanted])

    chosen = select_images(shuffled, wanted, seed)

    assert names(chosen) == expected
    assert set(chosen) <= set(select_images(images, wanted + 1, seed))
    assert chosen == select_images([i for i in images if i in chosen], wanted, seed)


def test_choice_depends_on_the_seed() -> None:
    assert select_images(listing(50), 10, 0) != select_images(listing(50), 10, 1)


def test_choice_of_all() -> None:
    assert names(select_images(listing(12), None, 0)) == sorted(names(tuple(listing(12))))


@pytest.mark.parametrize("count", [0, -1])
def test_choice_of_none(count: int) -> None:
    with pytest.raises(DataError, match="must be positive"):
        select_images(listing(3), count, 0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty-three images, the first decode slowest; two of them cannot be read."""
    rng = np.random.default_rng(0)
    for index in range(23):
        side = 240 - 10 * index
        codes = rng.integers(0, 256, (side, side + 3, 3), np.uint8)
        Image.fromarray(codes).save(tmp_path / f"{index:02d}.png")
    (tmp_path / "05.png").write_bytes(b"<html>404</html>")
    (tmp_path / "22.png").write_bytes((tmp_path / "00.png").read_bytes()[:500])
    return tmp_path


SMALL = Preprocess(resize=20, crop=16)


@pytest.mark.parametrize("workers", [1, 2, 7])
@pytest.mark.parametrize("batch", [1, 4, 23, 50])
def test_stream_keeps_the_order(folder: Path, workers: int, batch: int) -> None:
    images = list_images(folder)

    batches = list(stream_pixels(images, SMALL, workers=workers, batch=batch))

    good = [image for found in batches for image in found.images]
    bad = [(image.name, error.name) for found in batches for image, error in found.errors]
    assert [len(b.images) + len(b.errors) for b in batches][:-1] == [batch] * (len(batches) - 1)
    assert good == [image for image in images if image.name not in {"05.png", "22.png"}]
    assert bad == [(name, str(folder / name)) for name in ("05.png", "22.png")]
    for found in batches:
        for image, pixels in zip(found.images, found.pixels, strict=True):
            np.testing.assert_array_equal(pixels, to_pixels(image.path, SMALL))
        if found.images:
            assert found.stack().shape == (len(found.images), 16, 16, 3)


def test_stream_of_sizes_that_differ(folder: Path) -> None:
    images = list_images(folder)[:3]
    (found,) = stream_pixels(images, PRESETS["cifar10"], batch=3)

    with pytest.raises(ImageError, match=r"01\.png: 233x230 px, the images before it 243x240"):
        found.stack()


def test_stream_checks_the_models_size(folder: Path) -> None:
    (found,) = stream_pixels(list_images(folder)[:1], PRESETS["cifar10"], size=(32, 32))

    assert not found.images
    assert "the model takes 32x32" in str(found.errors[0][1])


def decoders() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "edgecls-decode" in thread.name]


@pytest.mark.parametrize("end", ["close", "forget", "exhaust"])
def test_stream_leaves_no_thread(folder: Path, end: str) -> None:
    stream = stream_pixels(list_images(folder), SMALL, workers=3)
    next(stream)
    assert decoders()
    if end == "close":
        stream.close()
    elif end == "exhaust":
        list(stream)
    else:
        del stream
        gc.collect()

    assert not decoders()


def test_stream_reads_only_a_little_ahead(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow consumer holds the decoders back: that bounds the memory."""
    read: list[str] = []

    def slow(data: bytes, preprocess: Preprocess, *, size: object, name: str) -> np.ndarray:
        read.append(name)
        return np.zeros((16, 16, 3), np.uint8)

    monkeypatch.setattr("edgecls.data.stream.read_regular_file", lambda name: b"")
    monkeypatch.setattr("edgecls.data.stream.to_pixels", slow)
    images = [ImageFile(path=Path(f"{i}.png"), name=f"{i}.png") for i in range(100)]
    taken = 0
    for _ in stream_pixels(images, SMALL, workers=2):
        taken += 1
        if taken % 20 == 0:
            time.sleep(0.05)
        assert len(read) <= taken + 4

    assert taken == 100
    assert sorted(read) == sorted(image.name for image in images)


def test_stream_hands_on_the_hash_of_each_file_and_its_name(folder: Path) -> None:
    batches = list(stream_pixels(list_images(folder), SMALL, batch=3))

    found = [
        (image.name, digest)
        for batch in batches
        for image, digest in zip(batch.images, batch.hashes, strict=True)
    ]
    errors = [error.name for batch in batches for _, error in batch.errors]

    good = [image for image in list_images(folder) if image.name not in {"05.png", "22.png"}]
    assert found == [(image.name, sha256_file(image.path)) for image in good]
    assert errors == [str(folder / "05.png"), str(folder / "22.png")]


def test_stream_passes_a_bug_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(data: bytes, preprocess: Preprocess, *, size: object, name: str) -> np.ndarray:
        raise ZeroDivisionError

    monkeypatch.setattr("edgecls.data.stream.read_regular_file", lambda name: b"")
    monkeypatch.setattr("edgecls.data.stream.to_pixels", broken)

    with pytest.raises(ZeroDivisionError):
        list(stream_pixels(listing(3), SMALL))

    assert not decoders()


@pytest.mark.parametrize("arguments", [{"workers": 0}, {"batch": 0}])
def test_stream_needs_a_worker_and_a_batch(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        next(stream_pixels(listing(1), SMALL, **arguments))


def test_stream_of_nothing() -> None:
    assert list(stream_pixels([], SMALL)) == []


def test_awkward_files_are_listed_and_none_stops_the_stream(edgecls_data: Path) -> None:
    folder = edgecls_data / "nasty"
    known = json.loads((folder / "manifest.json").read_text())
    images = list_images(folder)

    found = {}
    for batch in stream_pixels(images, PRESETS["imagenet"], batch=4):
        found.update(dict.fromkeys((image.name for image in batch.images), "ok"))
        found.update(dict.fromkeys((image.name for image, _ in batch.errors), "error"))

    left_out = {".hidden.jpg", "._AppleDouble.jpg", "dir.jpg/", "noextension"}
    assert found.keys() == known.keys() - left_out
    for name, result in found.items():
        expected = re.match(r"ok or|ok|error or|error|refuse|", known[name]["expect"])
        assert expected is not None
        if expected[0] in {"error", "refuse"}:
            assert result == "error", name
        if expected[0] == "ok":
            assert result == "ok", name
