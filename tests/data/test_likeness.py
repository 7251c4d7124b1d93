from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecls.core.preprocess import PRESETS
from edgecls.data.images import list_images
from edgecls.data.likeness import SAME, likest, thumbnail
from edgecls.data.mnist import mnist_5k
from edgecls.data.stream import stream_pixels


def picture(seed: int, side: int = 96) -> np.ndarray:
    blots = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(blots).resize((side, side), Image.Resampling.BICUBIC))


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    index, found = likest(thumbnail(one)[None], thumbnail(other)[None])
    assert index.tolist() == [0]
    return float(found[0])


@pytest.mark.parametrize("seed", range(5))
def test_another_encoding_size_or_brightness_is_the_same_picture(seed: int) -> None:
    original = picture(seed)
    smaller = np.asarray(Image.fromarray(original).resize((64, 64), Image.Resampling.BILINEAR))
    darker = (original * 0.6 + 10).astype(np.uint8)
    noisy = np.clip(original + np.random.default_rng(seed).normal(0, 8, original.shape), 0, 255)

    for other in (jpeg(original, 40), smaller, darker, noisy.astype(np.uint8)):
        assert likeness(original, other) >= SAME


@pytest.mark.parametrize("seed", range(5))
def test_another_picture_or_a_mirrored_one_is_not(seed: int) -> None:
    assert likeness(picture(seed), picture(seed + 100)) < 0.8
    assert likeness(picture(seed), picture(seed)[:, ::-1]) < 0.8


def test_an_image_of_one_colour_is_like_no_other() -> None:
    flat = np.full((40, 40, 3), 128, np.uint8)

    assert likeness(flat, flat) == 0.0


def test_two_digits_are_not_taken_for_one() -> None:
    images, _ = mnist_5k()
    hashes = np.array([thumbnail(digit[:, :, None]) for digit in images[::5]])
    products = hashes @ hashes.T
    np.fill_diagonal(products, 0.0)

    assert np.mean(products.max(axis=1) >= SAME) <= 0.002


def test_photos_are_unlike_each_other(edgecls_data: Path) -> None:
    stream = stream_pixels(list_images(edgecls_data / "imagenet500")[:120], PRESETS["imagenet"])
    hashes = np.array([thumbnail(pixels) for batch in stream for pixels in batch.pixels])
    products = hashes @ hashes.T
    np.fill_diagonal(products, 0.0)

    assert products.max() < 0.95
