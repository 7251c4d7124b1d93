"""Drawn images whose classes depend on all that a pipeline can get wrong.

A class is a tint (BGR swaps them, lossy files lose it), a shape (squashing makes discs ellipses)
and a pattern (fine stripes look plain when they are averaged, and coarse when they are not).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgecls.core.preprocess import Preprocess

HEIGHT, WIDTH = 72, 108
CLASSES = tuple(
    f"{tint} {pattern} {shape}"
    for tint in ("red", "blue")
    for pattern in ("plain", "striped")
    for shape in ("disc", "ellipse")
)
PREPROCESS = Preprocess(
    resize=32, crop=32, interpolation="bilinear", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)
)
PREPROCESS_TOML = """
[preprocess]
resize = 32
crop = 32
interpolation = "bilinear"
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
"""


def draw(count: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return images (N, H, W, 3) and classes (N,), equally many of each."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    classes = np.arange(count) % len(CLASSES)
    images = np.empty((count, HEIGHT, WIDTH, 3), np.uint8)
    for index, number in enumerate(classes):
        blue, striped, ellipse = number >> 2 & 1, number >> 1 & 1, number & 1
        radius = random.uniform(16, 22)
        wide = radius * (random.uniform(0.58, 0.68) if ellipse else random.uniform(0.97, 1.03))
        top, left = HEIGHT / 2 + random.uniform(-4, 4), WIDTH / 2 + random.uniform(-4, 4)
        inside = ((y - top) / radius) ** 2 + ((x - left) / wide) ** 2 < 1
        period = 10.0 if striped else 2.5
        waves = np.sign(np.sin(2 * np.pi * (x / period + random.uniform())))
        light = 105 + 55 * inside + 40 * waves * inside + random.normal(0, 6, x.shape)
        tint = np.asarray([1, 0, -1]) * (-1 if blue else 1) * random.uniform(9, 14)
        images[index] = np.clip(light[..., None] + tint, 0, 255)
    return images, classes


def write(images: NDArray[np.uint8], classes: NDArray[np.int64], folder: Path) -> Path:
    """Write a folder of PNG files for each class; return ``folder``."""
    for index, (image, number) in enumerate(zip(images, classes, strict=True)):
        path = folder / CLASSES[number] / f"{index:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path, compress_level=1)
    return folder


def reencode(folder: Path, out: Path, quality: int) -> Path:
    """Write every image of a folder as a JPEG file of the same name; return ``out``."""
    for path in folder.rglob("*.png"):
        target = (out / path.relative_to(folder)).with_suffix(".jpg")
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            image.save(target, quality=quality)
    return out
