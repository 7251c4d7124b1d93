"""The images that an export is checked with, and those that become golden samples."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final, Literal

import numpy as np
from PIL import Image

from ..core.errors import ImageError
from ..core.preprocess import PixelStep, Preprocess
from ..core.values import Pixels
from ..data.images import ImageFile
from ..runtimes.images import MAX_PIXELS, decode_image, read_image, read_regular_file
from ..runtimes.preprocess import to_pixels
from ..runtimes.steps import StepHashes

GOLDEN: Final = 4
_MAX_BYTES: Final = 256 << 10
_LONGER_SIDE: Final = 640


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """A few images with what preprocessing makes of them.

    Attributes:
        files: Each image file's bytes.
        suffixes: Each file's ending, with its dot.
        pixels: Shape (N, H, W, C), uint8.
        steps: The hash of what each step of the preprocessing gave, of each image.
        source: Whether they are real.
    """

    files: tuple[bytes, ...]
    suffixes: tuple[str, ...]
    pixels: Pixels
    steps: tuple[dict[PixelStep, str], ...]
    source: Literal["calibration", "synthetic"]


def real_samples(
    images: Sequence[ImageFile], preprocess: Preprocess, size: tuple[int, int]
) -> Samples | None:
    """Return the first readable ones of the images; None where there are too few.

    They ship with every bundle: a file of more than 256 KiB is made smaller, and is then the
    sample instead of the original. Where ``preprocess.draft`` reduces JPEG files and does not
    reduce this one, a JPEG is made of it that is just large enough.
    """
    files: list[bytes] = []
    suffixes: list[str] = []
    pixels: list[Pixels] = []
    steps: list[dict[PixelStep, str]] = []
    for image in images:
        try:
            data = read_regular_file(str(image.path))
            suffix = PurePosixPath(image.name).suffix.lower()
            if len(data) > _MAX_BYTES or not _proves_draft(data, preprocess):
                data, suffix = _as_jpeg(data, preprocess), ".jpg"
            watch = StepHashes()
            found = to_pixels(data, preprocess, size=size, watch=watch)
        except ImageError:
            continue  # the calibration pass reports it
        files.append(data)
        suffixes.append(suffix)
        pixels.append(found)
        steps.append(watch.hashes)
        if len(files) == GOLDEN:
            return Samples(
                files=tuple(files),
                suffixes=tuple(suffixes),
                pixels=np.stack(pixels),
                steps=tuple(steps),
                source="calibration",
            )
    return None


def _proves_draft(data: bytes, preprocess: Preprocess) -> bool:
    """Whether an image shows that a device reduces JPEG files as it should; if there is any."""
    if not preprocess.draft or not preprocess.resize:
        return True
    decoded = decode_image(data, preprocess)
    return decoded.image.size != decoded.size


def _as_jpeg(data: bytes, preprocess: Preprocess) -> bytes:
    """Return an image as a JPEG of at most 640 px; as it is where the model takes its full size.

    Where JPEG files are reduced it is the smallest that is, if any is that may be read.
    """
    if preprocess.resize == 0:
        return data
    image = read_image(data, preprocess)
    width, height = (2 * preprocess.draft * side for side in preprocess.resized(*image.size))
    if 0 < width * height <= MAX_PIXELS:
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    else:
        image.thumbnail((_LONGER_SIDE, _LONGER_SIDE), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def synthetic_samples(preprocess: Preprocess, size: tuple[int, int], seed: int) -> Samples:
    """Return seeded images of soft coloured blots: PNG files, or JPEG where these are reduced."""
    generator = np.random.default_rng(seed)
    height, width = size
    if preprocess.output_size is not None:
        # Another shape than the model's, so that resize and crop have something to do.
        height, width = height + height // 5, width + width // 3
    files, pixels, steps = [], [], []
    for _ in range(GOLDEN):
        blots = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        image = Image.fromarray(blots).resize((width, height), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        data = buffer.getvalue()
        proves = _proves_draft(data, preprocess)
        files.append(data if proves else _as_jpeg(data, preprocess))
        suffix = ".png" if proves else ".jpg"
        watch = StepHashes()
        pixels.append(to_pixels(files[-1], preprocess, size=size, watch=watch))
        steps.append(watch.hashes)
    return Samples(
        files=tuple(files),
        suffixes=(suffix,) * GOLDEN,
        pixels=np.stack(pixels),
        steps=tuple(steps),
        source="synthetic",
    )
