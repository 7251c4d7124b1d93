from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgecls.core.errors import ImageError, MissingPackageError
from edgecls.core.preprocess import PRESETS, Preprocess
from edgecls.runtimes.preprocess import pixels_from_png, pixels_to_png, to_pixels

from .conftest import encoded, photo

ONE = {"mean": (0.0,), "std": (1.0,)}


@pytest.fixture(scope="module")
def transforms() -> Any:
    """The transforms of torchvision, the oracle."""
    pytest.importorskip("torch")
    from edgecls.core.torchvision_ops import import_torchvision

    try:
        import_torchvision()
    except MissingPackageError:
        pytest.skip("torchvision is not installed")
    from torchvision import transforms

    return transforms


def torchvision_pixels(transforms: Any, image: Image.Image, preprocess: Preprocess) -> Any:
    """Resize and crop with torchvision; the width before the height, as Pillow 12 and older do."""
    modes = transforms.InterpolationMode
    steps = []
    if preprocess.resize:
        size = preprocess.resize
        how = {"interpolation": modes(preprocess.interpolation)}
        whole = transforms.Resize(list(size) if isinstance(size, tuple) else size, **how)
        height, width = whole(Image.new("L", image.size)).size[::-1]
        if preprocess.interpolation != "nearest":
            steps.append(transforms.Resize([image.height, width], **how))
        steps.append(transforms.Resize([height, width], **how))
    if preprocess.crop:
        steps.append(transforms.CenterCrop(preprocess.crop))
    for step in steps:
        image = step(image)
    return np.asarray(image)


@settings(max_examples=150, deadline=None)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    resize=st.one_of(st.integers(0, 60), st.tuples(st.integers(1, 60), st.integers(1, 60))),
    crop=st.one_of(st.integers(0, 70), st.tuples(st.integers(1, 70), st.integers(1, 70))),
    interpolation=st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]),
)
def test_pixels_are_those_of_torchvision(
    transforms: Any, height: int, width: int, resize: Any, crop: Any, interpolation: Any
) -> None:
    preprocess = Preprocess(resize=resize, crop=crop, interpolation=interpolation)
    image = photo(size=(height, width))

    found = to_pixels(image, preprocess)

    expected = torchvision_pixels(transforms, Image.fromarray(image), preprocess)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["imagenet", "inception"])
def test_photos_are_those_of_torchvision(transforms: Any, edgecls_data: Path, name: str) -> None:
    preprocess = PRESETS[name]
    files = sorted((edgecls_data / "imagenet500").glob("n*/*"))[::10]
    assert len(files) == 50
    for file in files:
        with Image.open(file) as image:
            expected = torchvision_pixels(transforms, image.convert("RGB"), preprocess)

        np.testing.assert_array_equal(to_pixels(file, preprocess), expected)


@pytest.mark.parametrize("size", [(10, 4000), (4000, 10), (1, 30000), (30, 30000)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_long_line_is_resized_only_where_it_is_kept(
    size: tuple[int, int], interpolation: Any
) -> None:
    preprocess = Preprocess(resize=256, crop=224, interpolation=interpolation)
    image = photo(size=size)
    height, width = size
    # The whole, but only as many columns (or rows) as the crop can reach: what is cut away is
    # farther from the centre than any filter looks.
    kept = image[:, width // 2 - 150 : width // 2 + 150] if width > height else (
        image[height // 2 - 150 : height // 2 + 150]
    )  # fmt: skip

    found = to_pixels(image, preprocess).astype(int)

    expected = to_pixels(kept, preprocess).astype(int)
    assert found.shape == (224, 224, 3)
    assert np.abs(found - expected).max() <= 1


def test_the_longest_line_is_refused_where_nothing_crops_it() -> None:
    with pytest.raises(ImageError, match="too long"):
        to_pixels(np.zeros((1, 1_000_000), np.uint8), Preprocess(resize=256, crop=0))


def test_colors() -> None:
    image = photo()
    keep = {"resize": 0, "crop": 0}

    bgr = to_pixels(image, Preprocess(color="bgr", **keep))
    gray = to_pixels(image, Preprocess(color="gray", **keep, **ONE))

    np.testing.assert_array_equal(bgr, image[:, :, ::-1])
    assert bgr.flags.c_contiguous
    np.testing.assert_array_equal(gray[:, :, 0], np.asarray(Image.fromarray(image).convert("L")))
    assert gray.shape == (20, 30, 1)


def test_the_size_of_the_model_is_held() -> None:
    keep = Preprocess(resize=0, crop=0)

    assert to_pixels(photo(), keep, size=(20, 30)).shape == (20, 30, 3)
    with pytest.raises(ImageError, match="30x20 px after preprocessing, the model takes 32x32 px"):
        to_pixels(photo(), keep, size=(32, 32))


@pytest.mark.parametrize("preprocess", PRESETS.values(), ids=PRESETS)
def test_presets_give_their_own_size(preprocess: Preprocess) -> None:
    found = to_pixels(encoded(photo(), "JPEG"), preprocess)

    assert found.shape[:2] == (preprocess.output_size or (20, 30))
    assert found.shape[2] == preprocess.channels
    assert found.dtype == np.uint8


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3]), st.integers(0, 99))
def test_png_keeps_pixels(height: int, width: int, channels: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (height, width, channels), dtype=np.uint8)

    np.testing.assert_array_equal(pixels_from_png(pixels_to_png(pixels)), pixels)


@pytest.mark.parametrize("resize", [(32, 48), 20, (37, 11), (90, 130)])
def test_without_antialiasing_as_torch_interpolates(resize: int | tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")
    codes = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    preprocess = Preprocess(resize=resize, crop=0, interpolation="bilinear", antialias=False)
    found = to_pixels(codes, preprocess)
    wide = torch.from_numpy(codes).permute(2, 0, 1)[None].double()
    expected = torch.nn.functional.interpolate(wide, found.shape[:2], mode="bilinear")

    assert np.abs(found - expected[0].permute(1, 2, 0).numpy()).max() <= 1


def test_nearest_is_never_antialiased() -> None:
    codes = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    one, other = (
        to_pixels(codes, Preprocess(resize=20, crop=0, interpolation="nearest", antialias=value))
        for value in (True, False)
    )

    assert (one == other).all()


def test_a_filter_that_always_antialiases() -> None:
    with pytest.raises(ValueError, match="nearest or bilinear"):
        Preprocess(interpolation="bicubic", antialias=False)
