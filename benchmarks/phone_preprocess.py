"""How often a phone's answer is ours, by how the app scales the photo: docs/mobile.md's numbers.

    EDGECLS_DATA=... python benchmarks/phone_preprocess.py BUNDLE

The phone's scaling is emulated: bilinear from four pixels, as Android's Bitmap and MediaPipe do it.
"""

from __future__ import annotations

import argparse
import contextlib
from collections import Counter
from pathlib import Path

import numpy as np
from common import data_folder, machine
from PIL import Image

from edgecls.runtimes import load
from edgecls.runtimes.preprocess import to_pixels

STEP = 2  # every second photo


def four_pixels(image: Image.Image, size: int) -> Image.Image:
    """Scale to a square without looking at more than four pixels for each."""
    to_source = (image.width / size, 0, 0, 0, image.height / size, 0)
    return image.transform(
        (size, size), Image.Transform.AFFINE, to_source, Image.Resampling.BILINEAR
    )


def as_the_app(image: Image.Image, resize: int, crop: int) -> Image.Image:
    """Cut out the centre, halve it while that is possible, scale: examples/android."""
    side = round(min(image.size) * crop / resize)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    cut = image.crop((left, top, left + side, top + side))
    while cut.width >= 2 * crop:
        cut = four_pixels(cut, cut.width // 2)
    return four_pixels(cut, crop)


def main() -> None:
    """Print the agreement of both ways with the bundle's own preprocessing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    photos = sorted((data_folder() / "imagenet500").rglob("*.jpg"))[::STEP]
    same: Counter[str] = Counter()
    with contextlib.closing(load(parser.parse_args().bundle)) as predictor:
        preprocess = predictor.bundle.manifest.preprocess
        resize, crop = preprocess.resize, preprocess.crop
        if not (isinstance(resize, int) and isinstance(crop, int) and resize and crop):
            parser.error(f"expected a shorter side and a centre crop, found {preprocess}")
        for photo in photos:
            with Image.open(photo) as opened:
                image = opened.convert("RGB")
            ways = {
                "cut by the app": as_the_app(image, resize, crop),
                "stretched by MediaPipe": four_pixels(image, crop),
            }
            every = [to_pixels(photo, preprocess), *map(np.asarray, ways.values())]
            wanted, *found = (int(predictor.logits(each[None]).argmax()) for each in every)
            for way, answer in zip(ways, found, strict=True):
                same[way] += answer == wanted
    print(machine())
    for way, count in same.items():
        share = 100 * count / len(photos)
        print(f"{way}: {count} of {len(photos)} answers are the bundle's, {share:.1f} %")


if __name__ == "__main__":
    main()
