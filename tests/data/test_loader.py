from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecls.core.errors import DataError
from edgecls.core.preprocess import PRESETS, Preprocess
from edgecls.data.augment import Augment
from edgecls.data.cache import DiskCache, MemoryCache
from edgecls.data.dataset import Dataset, open_dataset
from edgecls.data.loader import Loader, process_pool
from edgecls.runtimes.preprocess import to_pixels

SMALL = Preprocess(resize=20, crop=16)
SHIFTED = Augment(crop="pad", flip=0.5, rotate=10)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for index in range(23):
        place = tmp_path / "data" / "abc"[index % 3]
        place.mkdir(parents=True, exist_ok=True)
        codes = random.integers(0, 256, (5, 6, 3), np.uint8)
        photo = Image.fromarray(codes).resize((24 + index, 40), Image.Resampling.BICUBIC)
        photo.save(place / f"{index:02d}.jpg")
    return tmp_path / "data"


def in_memory(count: int = 10, channels: int = 3) -> Dataset:
    random = np.random.default_rng(1)
    return Dataset(
        name="made",
        classes=("a", "b", "c"),
        labels=np.arange(count, dtype=np.int64) % 3,
        pixels=random.integers(0, 256, (count, 16, 16, channels), np.uint8),
    )


def flat(loader: Loader) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    batches = list(loader.batches())
    return (
        np.concatenate([batch.indices for batch in batches]),
        np.concatenate([batch.images for batch in batches]),
        np.concatenate([batch.labels for batch in batches]),
    )


def test_images_are_those_that_devices_see(folder: Path) -> None:
    dataset = open_dataset(folder)
    loader = Loader(dataset, SMALL, batch=5, shuffle=False)

    indices, images, labels = flat(loader)

    assert len(loader) == 5
    assert indices.tolist() == list(range(23))
    assert labels.tolist() == dataset.labels.tolist()
    assert images.dtype == np.float32
    pixels = np.stack([to_pixels(dataset.source(index), SMALL) for index in range(23)])
    assert np.array_equal(images, SMALL.normalize(pixels))
    plain = Loader(dataset, SMALL, batch=5, shuffle=False, normalize=False)
    assert np.array_equal(flat(plain)[1], pixels)


@pytest.mark.parametrize(
    "preprocess",
    [
        Preprocess(resize=0, crop=0),
        Preprocess(resize=16, crop=16),
        Preprocess(resize=(16, 16), crop=0),
        Preprocess(resize=16, crop=(16, 16)),
        Preprocess(resize=0, crop=8),
        Preprocess(resize=20, crop=0),
        Preprocess(resize=0, crop=0, color="bgr"),
        Preprocess(resize=0, crop=0, color="gray", mean=(0.1,), std=(0.5,)),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_images_in_memory_are_read_alike(preprocess: Preprocess, channels: int) -> None:
    dataset = in_memory(channels=channels)

    images = flat(Loader(dataset, preprocess, batch=4, shuffle=False))[1]

    assert dataset.pixels is not None
    pixels = np.stack([to_pixels(codes, preprocess) for codes in dataset.pixels])
    assert np.array_equal(images, preprocess.normalize(pixels))


def test_order_is_the_seeds_and_the_epochs() -> None:
    dataset = in_memory(40)

    def order(**options: int) -> list[int]:
        return flat(Loader(dataset, SMALL, batch=8, **options))[0].tolist()

    assert order(seed=1, epoch=0) == order(seed=1, epoch=0)
    assert sorted(order(seed=1)) == list(range(40))
    assert len({tuple(order(seed=seed, epoch=epoch)) for seed in (1, 2) for epoch in (0, 1)}) == 4


def shifted(folder: Path, workers: int | Executor) -> tuple[np.ndarray, ...]:
    loader = Loader(
        open_dataset(folder), SMALL, batch=4, seed=3, epoch=2, augment=SHIFTED, workers=workers
    )
    return flat(loader)


def test_the_number_of_workers_changes_nothing(folder: Path) -> None:
    one, five = shifted(folder, 1), shifted(folder, 5)

    assert all(np.array_equal(a, b) for a, b in zip(one, five, strict=True))
    unchanged = flat(Loader(open_dataset(folder), SMALL, batch=4, seed=3, epoch=2))
    assert np.array_equal(one[0], unchanged[0])
    assert not np.array_equal(one[1], unchanged[1])


@pytest.mark.slow
def test_processes_change_images_as_threads_do(folder: Path) -> None:
    expected = shifted(folder, 1)

    with process_pool(2) as pool:
        found = shifted(folder, pool)

    assert all(np.array_equal(a, b) for a, b in zip(expected, found, strict=True))


def test_an_image_is_changed_alike_wherever_it_stands(folder: Path) -> None:
    dataset = open_dataset(folder)
    one = flat(Loader(dataset, SMALL, batch=4, seed=3, augment=SHIFTED, shuffle=False))
    other = flat(Loader(dataset, SMALL, batch=7, seed=3, augment=SHIFTED))

    for index, image in zip(other[0], other[1], strict=True):
        assert np.array_equal(image, one[1][index])
    later = flat(Loader(dataset, SMALL, batch=4, seed=3, epoch=1, augment=SHIFTED, shuffle=False))
    assert not np.array_equal(later[1], one[1])


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_the_batches_of_one(world: int) -> None:
    dataset = in_memory(41)
    whole = list(Loader(dataset, SMALL, batch=3 * world, seed=5).batches())

    shares = [
        list(Loader(dataset, SMALL, batch=3, seed=5, rank=rank, world=world).batches())
        for rank in range(world)
    ]

    assert {len(share) for share in shares} == {len(whole)}
    for step, batch in enumerate(whole):
        own = [share[step].indices for share in shares]
        assert sorted(np.concatenate(own)) == sorted(batch.indices)


def test_every_image_is_evaluated_once_by_all_processes_together() -> None:
    dataset = in_memory(11)
    shares = [
        flat(Loader(dataset, SMALL, batch=2, shuffle=False, rank=rank, world=3))[0]
        for rank in range(3)
    ]

    assert sorted(np.concatenate(shares)) == list(range(11))


def test_what_fills_no_batch_is_left_out_of_training_only() -> None:
    dataset = in_memory(10)

    assert len(flat(Loader(dataset, SMALL, batch=4))[0]) == 8
    assert len(flat(Loader(dataset, SMALL, batch=4, drop_last=False))[0]) == 10
    assert len(flat(Loader(dataset, SMALL, batch=4, shuffle=False))[0]) == 10
    with pytest.raises(DataError, match="10 images do not fill a batch of 16; lower the batch"):
        Loader(dataset, SMALL, batch=4, world=4)


def test_unreadable_images_are_left_out_and_listed(folder: Path) -> None:
    (folder / "b" / "04.jpg").write_bytes(b"<html>")
    dataset = open_dataset(folder)
    loader = Loader(dataset, SMALL, batch=5, shuffle=False, tolerance=0.05)

    for _ in range(2):
        indices, images, labels = flat(loader)

        assert loader.unreadable == [("b/04.jpg", "not an image: an HTML page")]
        assert len(indices) == len(images) == len(labels) == 22
        assert [dataset.name_of(int(index)) for index in indices].count("b/04.jpg") == 0
    pixels = np.stack([to_pixels(dataset.source(int(index)), SMALL) for index in indices])
    assert np.array_equal(images, SMALL.normalize(pixels))


def test_too_many_unreadable_images_end_the_pass(folder: Path) -> None:
    (folder / "b" / "04.jpg").write_bytes(b"<html>")
    dataset = open_dataset(folder)

    with pytest.raises(DataError, match=r"1 images cannot be read, at most 0 of 20 .*b/04.jpg"):
        flat(Loader(dataset, SMALL, batch=5))
    with process_pool(1) as pool, pytest.raises(DataError, match="an HTML page"):
        flat(Loader(dataset, SMALL, batch=5, workers=pool))


def test_processes_that_share_a_pass_stay_in_step(folder: Path) -> None:
    (folder / "b" / "04.jpg").write_bytes(b"<html>")
    loader = Loader(
        open_dataset(folder), SMALL, batch=1, shuffle=False, world=2, rank=1, tolerance=0.5
    )

    with pytest.raises(DataError, match="no image of a batch can be read"):
        flat(loader)


def test_hostile_files_do_not_stop_the_others(edgecls_data: Path, tmp_path: Path) -> None:
    place = tmp_path / "nasty"
    place.mkdir()
    (place / "all").symlink_to(edgecls_data / "nasty")
    dataset = open_dataset(place)
    loader = Loader(dataset, PRESETS["imagenet"], batch=4, shuffle=False, tolerance=1.0)

    indices, images, _ = flat(loader)

    bad = {Path(name).name for name, _ in loader.unreadable}
    assert {"zero_byte.jpg", "html_404.jpg", "header_65500x65500.png"} <= bad
    assert not bad & {"cmyk.jpg", "gray16.png", "one_pixel.png", "wide_4000x10.jpg"}
    assert len(indices) + len(bad) == len(dataset)
    assert images.shape[1:] == (3, 224, 224)


def test_sizes_that_differ_are_said(folder: Path) -> None:
    dataset = open_dataset(folder)

    with pytest.raises(DataError, match="give a preprocessing that resizes or crops"):
        flat(Loader(dataset, Preprocess(resize=0, crop=0), batch=4))


CACHES: list[Callable[[Path], MemoryCache | DiskCache]] = [
    lambda folder: MemoryCache(1 << 20),
    lambda folder: MemoryCache(3000),
    lambda folder: DiskCache(folder / "cache", 1 << 20),
    lambda folder: DiskCache(folder / "cache", 3000),
]


@pytest.mark.parametrize("make", CACHES, ids=["memory", "little memory", "disk", "little disk"])
def test_a_cache_changes_nothing(folder: Path, tmp_path: Path, make) -> None:
    dataset = open_dataset(folder)
    cache = make(tmp_path)

    for epoch in range(3):
        options = {"batch": 4, "seed": 1, "epoch": epoch, "augment": SHIFTED}
        with_cache = flat(Loader(dataset, SMALL, cache=cache, workers=3, **options))
        without = flat(Loader(dataset, SMALL, **options))
        assert np.array_equal(with_cache[1], without[1])


def test_processes_need_a_cache_on_disk(folder: Path, tmp_path: Path) -> None:
    dataset = open_dataset(folder)
    with process_pool(1) as pool:
        with pytest.raises(ValueError, match="must be on disk"):
            Loader(dataset, SMALL, batch=4, workers=pool, cache=MemoryCache(1000))
        cache = DiskCache(tmp_path / "cache", 1 << 20)
        found = flat(Loader(dataset, SMALL, batch=4, workers=pool, cache=cache))
    assert np.array_equal(found[1], flat(Loader(dataset, SMALL, batch=4))[1])
    assert len(list((tmp_path / "cache").glob("*/*.px"))) == 20


def test_closing_a_pass_stops_its_threads(folder: Path) -> None:
    before = threading.active_count()
    batches = Loader(open_dataset(folder), SMALL, batch=2, workers=3).batches()
    next(batches)
    assert threading.active_count() > before

    batches.close()

    assert threading.active_count() == before


def test_mixed_labels_are_probabilities(folder: Path) -> None:
    dataset = open_dataset(folder)
    for augment in (Augment(mixup=0.4), Augment(cutmix=1.0), Augment(mixup=0.4, cutmix=1.0)):
        options = {"batch": 6, "seed": 1, "augment": augment}
        _, images, labels = flat(Loader(dataset, SMALL, **options))

        assert labels.shape == (18, 3)
        assert labels.dtype == np.float32
        assert np.allclose(labels.sum(1), 1)
        assert ((labels > 0).sum(1) == 2).any()
        assert np.array_equal(images, flat(Loader(dataset, SMALL, workers=5, **options))[1])


@pytest.mark.parametrize(
    "options", [{"batch": 0}, {"rank": 1}, {"rank": -1}, {"workers": 0}, {"world": 0}]
)
def test_arguments_are_checked(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="found batch"):
        Loader(in_memory(), SMALL, **{"batch": 2, **options})
