from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgecls.core.errors import UsageError
from edgecls.core.preprocess import Preprocess
from edgecls.data.augment import (
    PRESETS,
    Augment,
    augment_pixels,
    generator,
    mix_batch,
    resolve_augment,
)

AS_IT_IS = Preprocess(resize=0, crop=0)


def photo(height: int = 40, width: int = 32, channels: int = 3) -> np.ndarray:
    random = np.random.default_rng(0)
    codes = random.integers(1, 256, (6, 5, channels), np.uint8)
    planes = [
        np.asarray(Image.fromarray(codes[..., c]).resize((width, height))) for c in range(channels)
    ]
    return np.maximum(np.stack(planes, axis=2), 1)


def change(pixels: np.ndarray, seed: object, preprocess: Preprocess = AS_IT_IS, **options: Any):
    return augment_pixels(pixels, Augment(**options), preprocess, generator(seed))


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("channels", [1, 3])
def test_presets_are_repeatable_and_keep_the_shape(name: str, channels: int) -> None:
    gray = {"color": "gray", "mean": (0.5,), "std": (0.5,)} if channels == 1 else {}
    preprocess = Preprocess(resize=0, crop=0, **gray)
    pixels = photo(channels=channels)
    before = pixels.copy()

    results = [
        augment_pixels(pixels, resolve_augment(name), preprocess, generator(seed))
        for seed in (1, 1, 2, 3, 4)
    ]

    assert all(found.shape == pixels.shape and found.dtype == np.uint8 for found in results)
    assert np.array_equal(results[0], results[1])
    assert (len({found.tobytes() for found in results[1:]}) == 1) == (name == "none")
    assert np.array_equal(pixels, before)


def test_a_padded_crop_is_a_shift_by_an_eighth_at_most() -> None:
    pixels = photo()
    padded = np.pad(pixels, ((5, 5), (4, 4), (0, 0)))
    windows = {
        padded[top : top + 40, left : left + 32].tobytes(): (top, left)
        for top in range(11)
        for left in range(9)
    }

    found = [windows[change(pixels, seed, crop="pad").tobytes()] for seed in range(300)]

    assert {top for top, _ in found} == set(range(11))
    assert {left for _, left in found} == set(range(9))


def test_half_of_the_images_are_mirrored() -> None:
    pixels = photo()
    mirrored = sum(
        np.array_equal(change(pixels, seed, flip=0.5), pixels[:, ::-1]) for seed in range(400)
    )

    assert 150 < mirrored < 250  # p < 1e-6 outside
    assert np.array_equal(change(pixels, 0, flip=1.0), pixels[:, ::-1])


def test_a_resized_crop_has_the_models_size_and_reads_what_the_centre_crop_cuts_off() -> None:
    augment, preprocess = Augment(crop="auto"), Preprocess(resize=100, crop=80)

    assert augment.reading(preprocess) == Preprocess(resize=100, crop=0)
    assert Augment(crop="pad").reading(preprocess) == preprocess
    small = Preprocess(resize=40, crop=32)
    assert augment.reading(small) == small
    for seed in range(20):
        found = augment_pixels(photo(100, 150), augment, preprocess, generator(seed))
        assert found.shape == (80, 80, 3)


def test_the_whole_image_is_a_part_too() -> None:
    pixels = photo(96, 96)
    whole = {"crop": "resized", "area": (1.0, 1.0)}
    square = Preprocess(resize=0, crop=48)

    results = {change(pixels, seed, square, **whole).tobytes() for seed in range(30)}

    image = Image.fromarray(pixels).resize((48, 48), Image.Resampling.BICUBIC)
    assert np.asarray(image).tobytes() in results


def test_channels_keep_their_order() -> None:
    pixels = photo()
    options = {"crop": "pad", "flip": 0.5, "color": 0.3, "rand_augment": 9}
    rgb = change(pixels, 3, **options)
    bgr = change(pixels[:, :, ::-1], 3, Preprocess(resize=0, crop=0, color="bgr"), **options)

    assert np.array_equal(rgb, bgr[:, :, ::-1])


def test_small_rotations_keep_the_middle() -> None:
    pixels = np.zeros((41, 41, 3), np.uint8)
    pixels[18:23, 18:23] = 200

    for seed in range(20):
        found = change(pixels, seed, rotate=20, scale=0.1)
        assert (found[20, 20] == 200).all()
        assert int(found.sum()) == pytest.approx(int(pixels.sum()), rel=0.35)


NAMES = {
    "shear_x": "ShearX", "shear_y": "ShearY", "translate_x": "TranslateX",
    "translate_y": "TranslateY", "rotate": "Rotate", "brightness": "Brightness", "color": "Color",
    "contrast": "Contrast", "sharpness": "Sharpness", "posterize": "Posterize",
    "solarize": "Solarize", "autocontrast": "AutoContrast", "equalize": "Equalize",
    "identity": "Identity",
}  # fmt: skip


@pytest.mark.parametrize("magnitude", [1, 9, 30])
def test_rand_augments_operations_are_torchvisions(magnitude: int) -> None:
    from edgecls.core.torchvision_ops import import_torchvision
    from edgecls.data.rand_augment import NAMES as OURS
    from edgecls.data.rand_augment import apply

    import_torchvision()
    from torchvision.transforms import v2

    assert set(OURS) == set(NAMES)
    theirs = v2.RandAugment(magnitude=magnitude, num_magnitude_bins=31)
    image = Image.fromarray(photo())
    for ours, name in NAMES.items():
        space, signed = theirs._AUGMENTATION_SPACE[name]
        values = space(31, 40, 32)
        value = 0.0 if values is None else float(values[magnitude])
        for sign in (1, -1) if signed else (1,):
            expected = theirs._apply_image_or_video_transform(
                image, name, sign * value, v2.InterpolationMode.NEAREST, theirs._fill
            )
            found = apply(v2.functional, image, ours, magnitude, sign)
            assert np.array_equal(np.asarray(found), np.asarray(expected)), (ours, sign)


@pytest.mark.parametrize("sign", [1, -1])
def test_magnitude_0_changes_nothing_but_the_codes_spread(sign: int) -> None:
    from edgecls.data.augment import import_torchvision_transforms
    from edgecls.data.rand_augment import NAMES as OURS
    from edgecls.data.rand_augment import apply

    functional = import_torchvision_transforms().functional
    image = Image.fromarray(photo())
    for name in sorted(set(OURS) - {"autocontrast", "equalize"}):
        found = apply(functional, image, name, 0, sign)
        assert np.array_equal(np.asarray(found), np.asarray(image)), name


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixed_images_are_what_their_labels_say(kind: str) -> None:
    """Of images of one value each, a mixture's mean is the labels' mean: both are lambda."""
    labels = np.arange(4)
    images = np.broadcast_to(labels[:, None, None, None], (4, 3, 16, 16)).astype(np.float32)

    mixed, soft = mix_batch(images, labels, 4, Augment(**{kind: 1.0}), generator(5))

    assert np.allclose(mixed.mean((1, 2, 3)), soft @ np.arange(4), atol=1e-5)
    assert np.allclose(soft.sum(1), 1)
    partly = (mixed != np.rint(mixed)).any()
    assert partly == (kind == "mixup")
    again, _ = mix_batch(images, labels, 4, Augment(**{kind: 1.0}), generator(5))
    assert np.array_equal(mixed, again)


def test_mixing_leaves_torchs_own_generator_alone() -> None:
    import torch

    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    images = np.zeros((2, 1, 4, 4), np.float32)
    mix_batch(images, np.arange(2), 2, Augment(mixup=0.5), generator(1))

    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    "options",
    [
        {"flip": 1.1}, {"flip": -0.1}, {"rotate": 181}, {"scale": 1.0}, {"color": 2},
        {"rand_augment": 31}, {"area": (0.0, 1.0)}, {"area": (0.9, 0.5)}, {"mixup": -1.0},
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        Augment(**options)


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(UsageError, match="'x' is none of none, shift, light, standard, strong"):
        resolve_augment("x")
