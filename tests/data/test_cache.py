from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from edgecls.core.errors import ImageError
from edgecls.core.preprocess import Preprocess
from edgecls.core.values import Pixels
from edgecls.data.cache import DiskCache, MemoryCache, PixelCache, variant_of


class Decoder:
    """Makes 10x10 pixels of a file's first byte, and counts how often."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, data: bytes) -> Pixels:
        self.calls += 1
        return np.full((10, 10, 1), data[0], np.uint8)


def files(folder: Path, count: int) -> list[str]:
    made = []
    for index in range(count):
        file = folder / f"{index}.raw"
        file.write_bytes(bytes([index + 1]) * 4)
        made.append(str(file))
    return made


def caches(folder: Path, images: int) -> list[PixelCache]:
    # A cache on disk keeps nine tenths, and its files have a header of 20 bytes.
    return [MemoryCache(100 * images), DiskCache(folder / "cache", 120 * images * 10 // 9 + 10)]


@pytest.mark.parametrize("place", [0, 1], ids=["memory", "disk"])
def test_what_is_kept_is_not_decoded_again(tmp_path: Path, place: int) -> None:
    cache, decode = caches(tmp_path, 3)[place], Decoder()
    paths = files(tmp_path, 3)

    for _ in range(3):
        for index, path in enumerate(paths):
            assert (cache.fetch(path, "v", decode) == index + 1).all()
    assert decode.calls == 3

    cache.fetch(paths[0], "w", decode)
    assert decode.calls == 4, "another preprocessing"
    Path(paths[1]).write_bytes(b"\x63" * 5)
    assert (cache.fetch(paths[1], "v", decode) == 0x63).all(), "another file"


@pytest.mark.parametrize("place", [0, 1], ids=["memory", "disk"])
def test_files_that_cannot_be_read_are_errors(tmp_path: Path, place: int) -> None:
    cache = caches(tmp_path, 3)[place]

    for name in ("absent", "nul\0", "."):
        with pytest.raises(ImageError):
            cache.fetch(str(tmp_path / name), "v", Decoder())


def test_memory_is_bounded_and_the_last_used_stay(tmp_path: Path) -> None:
    cache, decode = MemoryCache(200), Decoder()
    first, second, third = files(tmp_path, 3)
    for path in (first, second, first, third):
        cache.fetch(path, "v", decode)
    assert cache.used_bytes == 200
    assert decode.calls == 3

    cache.fetch(first, "v", decode)
    assert decode.calls == 3
    cache.fetch(second, "v", decode)
    assert decode.calls == 4

    nothing = MemoryCache(99)
    nothing.fetch(first, "v", decode)
    assert nothing.used_bytes == 0


def test_a_folder_is_bounded_and_the_last_used_stay(tmp_path: Path) -> None:
    folder, limit = tmp_path / "cache", 120 * 10
    cache, decode = DiskCache(folder, limit), Decoder()
    paths = files(tmp_path, 30)
    for number, path in enumerate(paths):
        cache.fetch(path, "v", decode)
        cache.fetch(paths[0], "v", decode)
        for age, file in enumerate(sorted(folder.glob("*/*.px"), key=os.path.getmtime)):
            os.utime(file, (number * 100 + age, number * 100 + age))

    assert sum(file.stat().st_size for file in folder.glob("*/*")) <= limit
    assert decode.calls == 30, "the one that is used again and again stays"
    assert DiskCache(folder, 0).fetch(paths[0], "v", Decoder()).shape == (10, 10, 1)
    assert not list(folder.glob("*/*"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:50],
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: b"XXXX" + data[4:],
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: bytes(len(data)),
    ],
)
def test_a_damaged_file_is_made_anew(tmp_path: Path, damage) -> None:
    cache, decode = DiskCache(tmp_path / "cache", 10_000), Decoder()
    (path,) = files(tmp_path, 1)
    cache.fetch(path, "v", decode)
    (kept,) = (tmp_path / "cache").glob("*/*.px")
    good = kept.read_bytes()
    kept.write_bytes(damage(good))

    assert (cache.fetch(path, "v", decode) == 1).all()

    assert decode.calls == 2
    assert kept.read_bytes() == good


def test_what_a_kill_left_is_removed(tmp_path: Path) -> None:
    DiskCache(tmp_path, 10_000)
    left = tmp_path / "v" / "tmp123.tmp"
    left.parent.mkdir()
    left.write_bytes(b"x")
    young = tmp_path / "v" / "tmp124.tmp"
    young.write_bytes(b"x")
    os.utime(left, (0, 0))

    DiskCache(tmp_path, 10_000)

    assert not left.exists()
    assert young.exists(), "another process may be writing it"


def test_only_what_changes_pixels_makes_a_variant() -> None:
    base = Preprocess()

    assert variant_of(base) == variant_of(Preprocess(mean=(0, 0, 0), std=(1, 1, 1), scale=1))
    others = [
        Preprocess(color="bgr"), Preprocess(resize=255), Preprocess(crop=200),
        Preprocess(interpolation="box"), Preprocess(exif=False),
        Preprocess(interpolation="bilinear"), Preprocess(interpolation="bilinear", antialias=False),
        Preprocess(draft=1),
    ]  # fmt: skip
    assert len({variant_of(base), *map(variant_of, others)}) == 9
