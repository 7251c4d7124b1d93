"""Faults are planted in one step each; ``verify`` names that step."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from edgecls.bundle import Bundle, write_bundle
from edgecls.bundle.manifest import GoldenSample
from edgecls.core.errors import ImageError
from edgecls.core.preprocess import PIXEL_STEPS, PixelStep, Preprocess
from edgecls.runtimes import images, load, preprocess
from edgecls.runtimes.preprocess import to_pixels
from edgecls.runtimes.steps import StepHashes, array_sha256
from edgecls.runtimes.verify import SampleResult, verify

from .conftest import (
    PREPROCESS,
    SIDE,
    Array,
    Made,
    MakeBundle,
    Weights,
    encoded,
    make_tflite,
    photo,
)

Plant = Callable[[pytest.MonkeyPatch], None]


def turned_photo(orientation: int) -> bytes:
    """A JPEG whose camera was held otherwise."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(photo(5, (40, 26)), "JPEG", quality=95, exif=exif)


SAMPLES = [
    (".png", encoded(photo(0))),
    (".jpg", turned_photo(6)),
    (".webp", encoded(photo(2, (31, 22)), "WEBP")),
]


@pytest.fixture
def bundle(make_bundle: MakeBundle, tflite_float: bytes, tflite_int8: bytes) -> Path:
    return make_bundle(
        Made("model.int8.tflite", "tflite", "int8", tflite_int8),
        Made("model.fp32.tflite", "tflite", "fp32", tflite_float),
        images=SAMPLES,
    )


def verified(bundle: Path, precision: Any = "fp32") -> tuple[SampleResult, ...]:
    return verify(load(bundle, precision=precision)).samples


def resealed(bundle: Path, replaced: dict[str, bytes], **changes: Any) -> None:
    """Change the manifest and files of a bundle; its hashes fit again."""
    opened = Bundle(bundle)
    files = {name: opened.read(name) for name in opened.manifest.files}
    write_bundle(bundle, msgspec.structs.replace(opened.manifest, **changes), files | replaced)


def patch_decoder(monkeypatch: pytest.MonkeyPatch, change: Callable[[Array], Array]) -> None:
    """Let the decoder give changed codes; what the file says of its orientation stays."""
    real = images.open_image

    def opened(name: str, data: bytes, max_pixels: int = images.MAX_PIXELS) -> Image.Image:
        image = real(name, data, max_pixels)
        exif = image.getexif()
        found = Image.fromarray(change(np.asarray(image.convert("RGB"))))
        monkeypatch.setattr(found, "getexif", lambda: exif, raising=False)
        return found

    monkeypatch.setattr(images, "open_image", opened)


def brighter(monkeypatch: pytest.MonkeyPatch) -> None:
    patch_decoder(monkeypatch, lambda codes: np.where(codes < 255, codes + 1, 254).astype(np.uint8))


def swapped(monkeypatch: pytest.MonkeyPatch) -> None:
    patch_decoder(monkeypatch, lambda codes: np.ascontiguousarray(codes[:, :, ::-1]))


def mirrored(monkeypatch: pytest.MonkeyPatch) -> None:
    patch_decoder(monkeypatch, lambda codes: np.ascontiguousarray(codes[:, ::-1]))


def exif_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_orientation", lambda image: 1)


def nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(preprocess._FILTERS, "bilinear", Image.Resampling.NEAREST)


def squashed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Preprocess, "resized", lambda self, width, height: (self.resize,) * 2)


def crop_off_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        preprocess, "_window", lambda length, crop: ((length - crop) // 2 + 1, crop)
    )


def bgr_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    real = preprocess.decoded_to_pixels

    def reversed_order(
        name: str, image: images.Decoded, wanted: Preprocess, *, size: Any, watch: Any
    ) -> Array:
        other = msgspec.structs.replace(wanted, color="bgr")
        return real(name, image, other, size=size, watch=watch)

    monkeypatch.setattr(preprocess, "decoded_to_pixels", reversed_order)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_without_a_fault_nothing_is_named(bundle: Path, precision: str) -> None:
    for sample in verified(bundle, precision):
        # The golden logits are the float oracle's: int8 is some steps away, within its limit.
        assert (sample.pixel_codes, sample.step, sample.message) == (0, None, "")


@pytest.mark.parametrize(
    ("plant", "step", "samples"),
    [
        (brighter, "decode", (0, 1, 2)),
        (swapped, "channel order", (0, 1, 2)),
        (mirrored, "orientation", (0, 1, 2)),
        (exif_ignored, "orientation", (1,)),  # the only one that the camera turned
        (nearest, "resize", (0, 1, 2)),
        (squashed, "resize", (0, 1, 2)),
        (crop_off_by_one, "crop", (0, 1, 2)),
        (bgr_pixels, "channel order", (0, 1, 2)),
    ],
)
def test_a_fault_in_the_pixels_is_named(
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    plant: Plant,
    step: PixelStep,
    samples: tuple[int, ...],
) -> None:
    plant(monkeypatch)

    found = verified(bundle)

    named = {index: sample.step for index, sample in enumerate(found) if sample.step is not None}
    assert named == dict.fromkeys(samples, step)
    for index, sample in enumerate(found):
        state = "passed" if index not in samples else "warning" if plant is brighter else "failed"
        assert sample.state == state
        assert sample.logits <= sample.limit  # of the stored pixels: the model is innocent


@pytest.mark.parametrize(
    ("precision", "change"),
    [
        ("fp32", {"mean": (0.5, 0.456, 0.406)}),
        ("fp32", {"std": (0.25, 0.25, 0.25)}),
        ("int8", {"scale": 100.0}),
    ],
)
def test_another_normalisation_is_named(bundle: Path, precision: Any, change: Any) -> None:
    resealed(bundle, {}, preprocess=msgspec.structs.replace(PREPROCESS, **change))

    found = verified(bundle, precision)

    assert [(s.state, s.step, s.pixel_codes) for s in found] == [("failed", "normalise", 0)] * 3
    assert all("the model is fed other values: exported with edgecls" in s.message for s in found)


def test_another_model_is_named(bundle: Path, weights: Weights) -> None:
    other = replace(weights, offset=weights.offset[::-1].copy())
    resealed(bundle, {"model.fp32.tflite": make_tflite(other, quantized=False)})

    found = verified(bundle)

    assert [(s.state, s.step, s.pixel_codes) for s in found] == [("failed", "model", 0)] * 3
    assert all("fed the right values, litert (library ai-edge-litert" in s.message for s in found)


def test_the_first_of_two_faults_is_named(
    bundle: Path, weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(weights, offset=weights.offset[::-1].copy())
    resealed(bundle, {"model.fp32.tflite": make_tflite(other, quantized=False)})
    nearest(monkeypatch)

    for sample in verified(bundle):
        assert sample.step == "resize"
        assert "pixel codes differ" in sample.message
        assert "logits differ" in sample.message


def test_an_unreadable_image_is_the_decoders(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str, data: bytes, max_pixels: int) -> Image.Image:
        raise ImageError(name, "damaged: decoder libjpeg not available")

    monkeypatch.setattr(images, "open_image", broken)

    for sample in verified(bundle):
        assert (sample.state, sample.step, sample.pixel_codes) == ("failed", "decode", None)
        assert "decoder libjpeg not available" in sample.message


@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
def test_each_hash_is_of_what_pillow_gives_by_hand(color: Any) -> None:
    """The oracle takes the steps one by one, in the manner of torchvision's documentation."""
    channels = 1 if color == "gray" else 3
    wanted = msgspec.structs.replace(
        PREPROCESS, color=color, mean=(0.5,) * channels, std=(0.5,) * channels
    )
    watch = StepHashes()
    pixels = to_pixels(turned_photo(6), wanted, watch=watch)

    image = Image.open(io.BytesIO(turned_photo(6)))
    mode = "L" if color == "gray" else "RGB"
    decoded = image.convert(mode)
    upright = ImageOps.exif_transpose(image).convert(mode)
    assert upright.size == (40, 26)
    resized = upright.resize((21, 14), Image.Resampling.BILINEAR)
    cropped = resized.crop((4, 1, 4 + SIDE, 1 + SIDE))
    ordered = np.asarray(cropped).reshape(SIDE, SIDE, channels)
    ordered = ordered[:, :, ::-1] if color == "bgr" else ordered
    expected = [decoded, upright, resized, cropped, ordered]

    assert np.array_equal(pixels, ordered)
    assert tuple(watch.hashes) == PIXEL_STEPS
    assert list(watch.hashes.values()) == [by_hand(np.asarray(found)) for found in expected]


def by_hand(array: Array) -> str:
    digest = hashlib.sha256()
    digest.update(f"{array.dtype.name} {'x'.join(map(str, array.shape))}\n".encode())
    for value in array.ravel():
        digest.update(value.tobytes())
    return digest.hexdigest()


@given(codes=st.binary(min_size=24, max_size=24))
def test_a_hash_tells_shapes_and_types_apart(codes: bytes) -> None:
    flat = np.frombuffer(codes, np.uint8)
    arrays = [flat, flat.view(np.int8), flat.reshape(2, 4, 3), flat.reshape(4, 2, 3)]

    assert len({array_sha256(array) for array in arrays}) == len(arrays)
    assert array_sha256(flat.reshape(4, 6).T) == array_sha256(flat.reshape(4, 6).T.copy())


def test_a_watched_run_gives_what_an_unwatched_one_gives() -> None:
    for _, data in SAMPLES:
        watched = to_pixels(data, PREPROCESS, watch=StepHashes())

        assert np.array_equal(watched, to_pixels(data, PREPROCESS))


def test_old_manifests_are_read() -> None:
    old = b'{"image": "a.png", "pixels": "a.pixels.png", "logits": {}}'

    sample = msgspec.json.decode(old, type=GoldenSample)

    assert (sample.steps, sample.tensors) == ({}, {})
