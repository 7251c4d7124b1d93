"""From an image to the pixels a model takes: the one implementation, bit for bit torchvision's."""

from __future__ import annotations

import io
import math
from typing import Final

import numpy as np
from PIL import Image

from ..core.errors import ImageError
from ..core.preprocess import Preprocess, Size
from ..core.values import Pixels
from .images import MAX_PIXELS, Decoded, ImageSource, Watch, decode_image, name_of, open_image

_FILTERS: Final = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}

# Without antialiasing: between the four pixels around a point, or the one that it lies in.
_SAMPLING: Final = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
}

# Above both, only what the crop keeps is resized; it differs from torchvision by a code at most.
# How far Lanczos looks, in pixels of the smaller image.
_WIDEST_FILTER: Final = 3.0

_LARGE_PIXELS: Final = 1 << 24
_LARGE_GROWTH: Final = 4


def to_pixels(
    image: ImageSource,
    preprocess: Preprocess,
    *,
    size: tuple[int, int] | None = None,
    name: str | None = None,
    watch: Watch | None = None,
) -> Pixels:
    """Read, resize and crop an image.

    Args:
        image: A path, bytes, a Pillow image, or codes (H, W[, 3]) uint8 in RGB order.
        preprocess: What the model expects.
        size: (height, width) of the model's input, where it is fixed.
        name: What errors call the image; its path where there is one, else "image".
        watch: Is shown what each step gave, for ``runtimes.steps``.

    Returns:
        Shape (H, W, C), uint8, contiguous, channels in the model's order.

    Raises:
        ImageError: The image cannot be read, or its size is not the one that the model takes and
            ``preprocess`` does not change it.
    """
    called = name or name_of(image)
    decoded = decode_image(image, preprocess, name=called, watch=watch)
    return decoded_to_pixels(called, decoded, preprocess, size=size, watch=watch)


def decoded_to_pixels(
    name: str,
    decoded: Decoded,
    preprocess: Preprocess,
    *,
    size: tuple[int, int] | None = None,
    watch: Watch | None = None,
) -> Pixels:
    """Resize and crop what ``decode_image`` gave.

    Raises:
        ImageError: As for ``to_pixels``; ``name`` is what it calls the image.
    """
    found = _crop_after_resize(name, decoded, preprocess, watch)
    if size is not None and (found.height, found.width) != size:
        raise ImageError(
            name,
            f"{found.width}x{found.height} px after preprocessing, the model takes "
            f"{size[1]}x{size[0]} px",
        )
    codes = np.asarray(found)
    if preprocess.color == "gray":
        codes = codes[:, :, None]
    elif preprocess.color == "bgr":
        codes = np.ascontiguousarray(codes[:, :, ::-1])
    if watch is not None:
        watch("channel order", codes)
    return codes


def pixels_to_png(pixels: Pixels) -> bytes:
    """Return the pixels of one image, (H, W, C), as a PNG whose channels are in the same order."""
    planes = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    file = io.BytesIO()
    Image.fromarray(planes).save(file, "PNG")
    return file.getvalue()


def pixels_from_png(data: bytes) -> Pixels:
    """Return what ``pixels_to_png`` was given.

    Raises:
        ImageError: ``data`` is not such a PNG.
    """
    image = open_image("golden pixels", data)
    if image.mode not in ("L", "RGB"):
        raise ImageError("golden pixels", f"expected mode L or RGB, found {image.mode}")
    codes = np.asarray(image)
    return codes if codes.ndim == 3 else codes[:, :, None]


def _crop_after_resize(
    name: str, decoded: Decoded, preprocess: Preprocess, watch: Watch | None
) -> Image.Image:
    image, (whole_width, whole_height) = decoded.image, decoded.size
    width, height = preprocess.resized(whole_width, whole_height)
    crop_width, crop_height = _width_height(preprocess.crop) or (width, height)
    growth = min(_LARGE_GROWTH * whole_width * whole_height, MAX_PIXELS)
    if width * height > max(_LARGE_PIXELS, growth):
        # A line of 4000x10 px would become 102400x256: resize only what stays.
        if min(crop_width, width) * min(crop_height, height) > MAX_PIXELS:
            raise ImageError(name, f"{whole_width}x{whole_height} px is too long to be resized")
        left, keep_width = _window(width, crop_width)
        top, keep_height = _window(height, crop_height)
        first_x, first_y, last_x, last_y = decoded.box
        x, y = (last_x - first_x) / width, (last_y - first_y) / height
        right, bottom = left + keep_width, top + keep_height
        box = (first_x + left * x, first_y + top * y, first_x + right * x, first_y + bottom * y)
        image = _scaled(image, (keep_width, keep_height), box, preprocess)
    elif decoded.box != (0, 0, width, height):
        image = _scaled(image, (width, height), decoded.box, preprocess)
    if watch is not None:
        watch("resize", image)
    image = _center_crop(image, crop_width, crop_height)
    if watch is not None:
        watch("crop", image)
    return image


def _scaled(
    image: Image.Image,
    size: tuple[int, int],
    box: tuple[float, float, float, float],
    preprocess: Preprocess,
) -> Image.Image:
    """Return what lies in ``box``, in px, as an image of ``size`` (width, height).

    The width first, then the height, in codes between: so did every Pillow before 13, which takes
    the order that is less work. Pixels shall not depend on Pillow's version.
    """
    if not preprocess.antialias:
        sampling = _SAMPLING[preprocess.interpolation]
        return image.transform(size, Image.Transform.EXTENT, box, sampling)
    kind = _FILTERS[preprocess.interpolation]
    if kind is Image.Resampling.NEAREST:
        return image.resize(size, kind, box=box)
    (width, height), (left, upper, right, lower) = size, box
    reach = math.ceil(_WIDEST_FILTER * max(1.0, (lower - upper) / height)) + 1
    first, last = max(math.floor(upper) - reach, 0), min(math.ceil(lower) + reach, image.height)
    if (first, last) != (0, image.height):
        image = image.crop((0, first, image.width, last))
    if (width, left, right) != (image.width, 0, image.width):
        image = image.resize((width, image.height), kind, box=(left, 0, right, image.height))
    return image.resize(size, kind, box=(0, upper - first, width, lower - first))


def _width_height(size: Size) -> tuple[int, int] | None:
    if isinstance(size, tuple):
        return size[1], size[0]
    return (size, size) if size else None


def _window(length: int, crop: int) -> tuple[int, int]:
    """Return (start, length) of what a centre crop keeps, rounded as torchvision rounds."""
    if crop >= length:
        return 0, length
    return round((length - crop) / 2.0), crop


def _center_crop(image: Image.Image, width: int, height: int) -> Image.Image:
    if image.size == (width, height):
        return image
    if width > image.width or height > image.height:
        padded = Image.new(image.mode, (max(width, image.width), max(height, image.height)))
        place = (max(width - image.width, 0) // 2, max(height - image.height, 0) // 2)
        padded.paste(image, place)
        image = padded
    left, width = _window(image.width, width)
    top, height = _window(image.height, height)
    return image.crop((left, top, left + width, top + height))
