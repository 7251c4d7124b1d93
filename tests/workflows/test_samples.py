"""Golden samples where JPEG files are decoded at a part of their size: they must show it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin

from edgecls.core.preprocess import Preprocess
from edgecls.data.images import list_images
from edgecls.runtimes.images import decode_image
from edgecls.runtimes.preprocess import to_pixels
from edgecls.runtimes.steps import StepHashes
from edgecls.workflows.samples import GOLDEN, Samples, real_samples, synthetic_samples

SIZE = (32, 32)
Make = Callable[[Path, Preprocess], Samples]


def real(folder: Path, preprocess: Preprocess) -> Samples:
    """Of small files, large ones, PNG and JPEG; the large JPEG alone is reduced as it is."""
    random = np.random.default_rng(0)
    for index in range(GOLDEN):
        blots = random.integers(0, 256, (5, 7, 3), dtype=np.uint8)
        size = (60, 45) if index % 2 else (600, 450)
        name = f"{index}.{'png' if index < 2 else 'jpg'}"
        Image.fromarray(blots).resize(size, Image.Resampling.BICUBIC).save(folder / name)
    found = real_samples(list_images(folder), preprocess, SIZE)
    assert found is not None
    return found


def synthetic(folder: Path, preprocess: Preprocess) -> Samples:
    return synthetic_samples(preprocess, SIZE, 0)


@pytest.mark.parametrize("make", [real, synthetic])
@pytest.mark.parametrize("resize", [40, (40, 48)])
def test_each_sample_shows_a_device_that_does_not_reduce(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Make, resize: int | tuple[int, int]
) -> None:
    preprocess = Preprocess(resize=resize, crop=32, draft=2)
    samples = make(tmp_path, preprocess)

    assert samples.suffixes == (".jpg",) * GOLDEN
    for file, pixels in zip(samples.files, samples.pixels, strict=True):
        decoded = decode_image(file, preprocess)
        assert decoded.image.size != decoded.size
        np.testing.assert_array_equal(to_pixels(file, preprocess), pixels)
    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "draft", lambda self, mode, size: None)
    for file, steps in zip(samples.files, samples.steps, strict=True):
        watch = StepHashes()
        to_pixels(file, preprocess, watch=watch)
        assert watch.first_difference(steps) == "decode"


def test_a_file_that_is_reduced_stays_as_it_is(tmp_path: Path) -> None:
    samples = real(tmp_path, Preprocess(resize=40, crop=32, draft=2))

    kept = [(tmp_path / f"{index}.jpg").read_bytes() in samples.files for index in (2, 3)]
    assert kept == [True, False]


@pytest.mark.parametrize("make", [real, synthetic])
def test_no_sample_is_larger_than_what_is_read(tmp_path: Path, make: Make) -> None:
    """A JPEG that is reduced to 4 times 3000 px has 24000 px a side, more than may be read."""
    samples = make(tmp_path, Preprocess(resize=(3000, 3000), crop=32, draft=4))

    assert len(samples.files) == GOLDEN


@pytest.mark.parametrize("preprocess", [Preprocess(resize=40, crop=32), Preprocess(
    resize=0, crop=32, draft=1)])  # fmt: skip
def test_where_nothing_is_reduced_files_stay_as_they_are(
    tmp_path: Path, preprocess: Preprocess
) -> None:
    assert real(tmp_path, preprocess).suffixes == (".png", ".png", ".jpg", ".jpg")
    assert synthetic(tmp_path, preprocess).suffixes == (".png",) * GOLDEN
