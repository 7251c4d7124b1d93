"""JPEG files decoded at a part of their size: how much, where the picture lies, and what else."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgecls.core.preprocess import Preprocess
from edgecls.runtimes.images import Decoded, decode_image, read_image
from edgecls.runtimes.preprocess import to_pixels

from .conftest import Array, encoded, photo

ONE: Any = {"color": "gray", "mean": (0.0,), "std": (1.0,)}
ORIENTATIONS = range(1, 9)


def jpeg(codes: Array, orientation: int = 1, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    found: bytes = encoded(
        codes, "JPEG", exif=exif, **{"quality": 100, "subsampling": 0, **options}
    )
    return found


def ramps(width: int, height: int) -> Array:
    """Red rises to the right, green downwards: each pixel says where it lies. (H, W, 3) uint8."""
    x, y = np.meshgrid(np.arange(width) * 255 / width, np.arange(height) * 255 / height)
    return np.rint(np.stack([x, y, np.full_like(x, 99)], axis=2)).astype(np.uint8)


def factor(found: Decoded) -> int:
    """How many pixels of the file one of the image stands for, in a row."""
    return -(-found.size[0] // found.image.width)


@given(
    st.integers(1, 300), st.integers(1, 300), st.integers(1, 4), st.booleans(),
    st.one_of(st.integers(1, 60), st.tuples(st.integers(1, 60), st.integers(1, 60))),
)  # fmt: skip
def test_the_least_part_that_is_large_enough(
    width: int, height: int, draft: int, sideways: bool, resize: int | tuple[int, int]
) -> None:
    preprocess = Preprocess(resize=resize, crop=0, draft=draft)
    file = jpeg(np.zeros((height, width, 3), np.uint8), 6 if sideways else 1)
    upright = (height, width) if sideways else (width, height)
    target = preprocess.resized(*upright)

    found = decode_image(file, preprocess)

    enough = [
        scale for scale in (1, 2, 4, 8)
        if all(Fraction(side, scale) >= draft * wanted
               for side, wanted in zip(upright, target, strict=True))
    ]  # fmt: skip
    expected = max(enough, default=1)
    assert found.size == upright
    assert found.image.size == tuple(-(-side // expected) for side in upright)
    left, upper, right, lower = found.box
    assert (right - left, lower - upper) == tuple(side / expected for side in upright)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("size", [(57, 41), (41, 57), (64, 48)])
@pytest.mark.parametrize("resize", [7, (9, 5)])
def test_each_pixel_lies_where_it_lies_in_full(
    orientation: int, size: tuple[int, int], resize: int | tuple[int, int]
) -> None:
    """57 columns are 14.25 quarters: a fifteenth that is taken for whole moves all by up to 13."""
    file = jpeg(ramps(*size), orientation)
    full = Preprocess(resize=resize, crop=0, interpolation="bilinear")
    draft = Preprocess(resize=resize, crop=0, interpolation="bilinear", draft=1)
    assert factor(decode_image(file, draft)) > 1

    expected, found = (to_pixels(file, one).astype(int) for one in (full, draft))

    inner = (slice(1, -1), slice(1, -1))  # at the border a filter has fewer pixels to its mean
    assert expected.shape == found.shape
    assert np.abs(expected[inner] - found[inner]).max() <= 3
    assert np.abs(expected - found).max() <= 8


def test_pixels_are_means_of_blocks() -> None:
    """libjpeg drops a block's high frequencies: what is left is each part's mean, about."""
    image = Image.fromarray(photo(1, (64, 96)))
    file = jpeg(np.asarray(image))
    for scale in (2, 4, 8):
        found = decode_image(file, Preprocess(resize=64 // scale, crop=0, draft=1))

        means = np.asarray(image.reduce(scale)).astype(int)
        assert factor(found) == scale
        assert np.abs(np.asarray(found.image) - means).mean() < 2


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 2}])
@pytest.mark.parametrize("color", [{"color": "rgb"}, {"color": "bgr"}, ONE])
def test_every_kind_of_jpeg(mode: str, options: dict[str, Any], color: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    Image.fromarray(photo(2, (160, 120))).convert(mode).save(
        buffer, "JPEG", quality=95, **({} if mode == "CMYK" else options)
    )
    full = Preprocess(resize=18, crop=16, **color)
    draft = Preprocess(resize=18, crop=16, draft=2, **color)

    expected, found = (to_pixels(buffer.getvalue(), one).astype(int) for one in (full, draft))

    assert decode_image(buffer.getvalue(), draft).image.size == (60, 80)
    assert found.shape == expected.shape
    assert 0 < np.abs(found - expected).mean() < 3


def as_array(image: Image.Image) -> Any:
    return np.asarray(image)


def as_png(image: Image.Image) -> Any:
    return encoded(np.asarray(image), "PNG")


def as_webp(image: Image.Image) -> Any:
    return encoded(np.asarray(image), "WEBP")


def as_open_jpeg(image: Image.Image) -> Any:
    return Image.open(io.BytesIO(jpeg(np.asarray(image))))


@pytest.mark.parametrize("make", [as_array, as_png, as_webp, as_open_jpeg])
def test_nothing_else_is_reduced(make: Any) -> None:
    source = make(Image.fromarray(photo(3, (256, 256))))

    assert decode_image(source, Preprocess(resize=20, draft=1)).image.size == (256, 256)


def test_nothing_is_reduced_that_is_not_resized_or_asked_to_be() -> None:
    file = jpeg(photo(4, (256, 256)))

    assert decode_image(file, Preprocess(resize=0, crop=20, draft=1)).image.size == (256, 256)
    assert decode_image(file, Preprocess(resize=20)).image.size == (256, 256)
    assert read_image(file, Preprocess(resize=20, draft=1)).size == (256, 256)


def test_a_small_jpeg_has_the_same_pixels() -> None:
    file = jpeg(photo(5, (300, 400)))

    np.testing.assert_array_equal(
        to_pixels(file, Preprocess(draft=1)), to_pixels(file, Preprocess())
    )


def test_a_line_is_cropped_before_it_is_resized() -> None:
    """Its resized width is beyond what is made in full: the window is cut of the reduced image."""
    random = np.random.default_rng(0)
    codes = np.repeat(random.integers(0, 256, (1, 1250, 3), np.uint8), 48, 1).repeat(260, 0)
    line = codes[:, :60000]
    full = Preprocess(resize=130, crop=128)
    draft = Preprocess(resize=130, crop=128, draft=2)
    half = Preprocess(resize=130, crop=128, draft=1)
    file = jpeg(line)

    expected = to_pixels(file, full).astype(int)

    assert decode_image(file, half).image.size == (30000, 130)
    assert np.abs(to_pixels(file, half) - expected).mean() < 3
    np.testing.assert_array_equal(to_pixels(file, draft), expected)
