"""One bundle, read with several versions of Pillow: the pixels are equal, to the last code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import PIL
import pytest
from PIL import Image

from .conftest import PREPROCESS, Made, MakeBundle, encoded, photo

pytestmark = pytest.mark.slow


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = orientation
    return found


SAMPLES = [
    (".jpg", encoded(photo(0, (90, 120)), "JPEG", quality=75)),
    (".jpg", encoded(photo(1, (120, 90)), "JPEG", quality=90, progressive=True, subsampling=0)),
    (".png", encoded(photo(2, (64, 80)))),
    (".webp", encoded(photo(3, (80, 60)), "WEBP", quality=80)),
    (".webp", encoded(photo(4, (60, 80)), "WEBP", lossless=True)),
]
# Pillow 13 itself resizes the height of these first; the image in between is rounded to codes.
TALL = [(".png", encoded(photo(5, (240, 60)))), (".png", encoded(photo(6, (300, 40))))]
# Of odd sides: the last column and row that `draft` gives stand for less; two lie on the side.
LARGE = [
    (".jpg", encoded(photo(7, (331, 447)), "JPEG", quality=90, **options))
    for options in (
        {"subsampling": 0}, {"subsampling": 2, "exif": exif(6)},
        {"subsampling": 1, "exif": exif(7)}, {"subsampling": 2, "progressive": True},
    )
]  # fmt: skip


@pytest.fixture(scope="module", params=["10.3.0", "11.0.0", "12.0.0", "13.0.0"])
def pillow(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(version, folder that holds it)."""
    folder = tmp_path_factory.mktemp("pillow")
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--only-binary=:all:"]
    done = subprocess.run(
        [*install, "--target", str(folder), f"pillow=={request.param}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"Pillow {request.param} cannot be had here: {done.stderr.strip()[-200:]}")
    return request.param, folder


@pytest.mark.parametrize("draft", [0, 1, 2])
def test_every_version_gives_the_same_pixels(
    pillow: tuple[str, Path], make_bundle: MakeBundle, tflite_float: bytes, draft: int
) -> None:
    _, folder = pillow
    bundle = make_bundle(
        Made("m.tflite", "tflite", "fp32", tflite_float),
        images=[*SAMPLES, *TALL, *LARGE],
        preprocess=msgspec.structs.replace(PREPROCESS, draft=draft),
        tools={"pillow": PIL.__version__},
    )
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-m", "edgecls", "verify", str(bundle), "--json"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr

    found = json.loads(done.stdout)["samples"]
    assert [(s["state"], s["pixel_codes"], s["step"]) for s in found] == [("passed", 0, None)] * 11
