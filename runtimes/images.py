"""Reading images that may be anything: never a hang, never more memory than is announced."""

from __future__ import annotations

import importlib
import io
import logging
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..core.errors import ImageError
from ..core.preprocess import PixelStep, Preprocess

ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | NDArray[np.uint8]"
"""A path, a file's bytes, a Pillow image, or codes of shape (H, W), (H, W, 1) or (H, W, 3), RGB."""

Watch: TypeAlias = "Callable[[PixelStep, Image.Image | NDArray[np.uint8]], None]"
"""Is shown what each step of the preprocessing gave, as it runs."""

MAX_FILE_BYTES: Final = 256 << 20
# Pillow warns above this size: a quarter of a GiB as RGB.
MAX_PIXELS: Final = 89_478_485

# Each format's first bytes and Pillow's reader. What is not here is not opened at all: EPS, for
# one, would start a program. The readers are called directly because Image.open prints a warning
# about large images where an error is wanted.
_READERS: Final = (
    (b"\xff\xd8\xff", "JpegImagePlugin", "JpegImageFile"),
    (b"\x89PNG\r\n\x1a\n", "PngImagePlugin", "PngImageFile"),
    (b"RIFF", "WebPImagePlugin", "WebPImageFile"),
    (b"GIF8", "GifImagePlugin", "GifImageFile"),
    (b"BM", "BmpImagePlugin", "BmpImageFile"),
    (b"II*\0", "TiffImagePlugin", "TiffImageFile"),
    (b"MM\0*", "TiffImagePlugin", "TiffImageFile"),
    *((b"P%d" % kind, "PpmImagePlugin", "PpmImageFile") for kind in range(1, 7)),
)

# Pillow logs what it also raises; where a program sets up no logging, that would be printed twice.
logging.getLogger("PIL").addHandler(logging.NullHandler())

_Box: TypeAlias = tuple[float, float, float, float]

_ORIENTATION_TAG: Final = 0x0112
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS: Final = (5, 6, 7, 8)
# Whose stored columns, or rows, run from right to left, or upwards, in the upright image.
_MIRRORED_X: Final = (2, 3, 7, 8)
_MIRRORED_Y: Final = (3, 4, 6, 7)


def name_of(source: ImageSource) -> str:
    """Return what an error calls an image: its path, or "image"."""
    return os.fspath(source) if isinstance(source, (str, os.PathLike)) else "image"


@dataclass(frozen=True, slots=True)
class Decoded:
    """An upright image, perhaps a reduced one.

    Attributes:
        image: Its pixels: mode "L" where ``Preprocess.color`` is "gray", else "RGB".
        size: (width, height) of the whole image, upright.
        box: (left, upper, right, lower), where the whole image lies in ``image``, in its pixels. A
            reduced one's last row and column may stand for less than the others.
    """

    image: Image.Image
    size: tuple[int, int]
    box: _Box


def read_image(source: ImageSource, preprocess: Preprocess) -> Image.Image:
    """Return what ``decode_image`` gives of an image in its full size, and raise what it raises."""
    return decode_image(source, msgspec.structs.replace(preprocess, draft=0)).image


def decode_image(
    source: ImageSource,
    preprocess: Preprocess,
    *,
    name: str | None = None,
    watch: Watch | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Decoded:
    """Decode an image, turn it upright where ``preprocess.exif`` says so, and convert its mode.

    Transparency is dropped, 16-bit grey keeps its high byte, of an animation the first frame is
    taken. Errors call it ``name``, or what ``name_of`` says. ``watch`` is shown what decoding and
    turning gave; an array is neither decoded nor turned. A file whose header announces more than
    ``max_pixels`` is not decoded.

    Raises:
        ImageError: Not a regular file, not an image of a known format, damaged, or too large.
    """
    if not isinstance(source, (str, os.PathLike, bytes, bytearray, Image.Image, np.ndarray)):
        raise ImageError(
            "image",
            f"expected a path, bytes, a Pillow image or an array, found {type(source).__name__}",
        )
    name = name or name_of(source)
    mode = "L" if preprocess.color == "gray" else "RGB"
    if isinstance(source, np.ndarray):
        return _whole(_convert(name, _from_array(name, source), mode))
    if isinstance(source, Image.Image):
        _check_size(name, source, max_pixels)
        return _whole(_finish(name, source, mode, preprocess.exif, watch))
    if isinstance(source, (bytes, bytearray)):
        data = bytes(source)
    else:
        data = read_regular_file(os.fspath(source))
    with open_image(name, data, max_pixels) as image:
        reduced = _reduce(image, preprocess) if preprocess.draft and preprocess.resize else None
        found = _finish(name, image, mode, preprocess.exif, watch)
    return _whole(found) if reduced is None else Decoded(found, *reduced)


def read_regular_file(path: str) -> bytes:
    """Return the bytes of a file; anything that is not a plain file is refused unopened.

    Raises:
        ImageError: It is a folder, pipe or device, is empty, too large, or cannot be read.
    """
    try:
        # Opening is an act on some devices (a watchdog, a tape): look first.
        _check_regular(path, Path(path).stat())
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            _check_regular(path, found)  # it may have been replaced since
            return file.read(found.st_size)
    except OSError as error:
        raise ImageError(path, (error.strerror or str(error)).lower()) from error
    except ValueError as error:  # a NUL in the name
        raise ImageError(path, str(error)) from error


def _check_regular(path: str, found: os.stat_result) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise ImageError(path, "is a folder, expected an image file")
    if not stat.S_ISREG(found.st_mode):
        raise ImageError(path, "is a pipe, socket or device, expected an image file")
    if found.st_size == 0:
        raise ImageError(path, "the file is empty")
    if found.st_size > MAX_FILE_BYTES:
        raise ImageError(
            path, f"{found.st_size >> 20} MiB, the most that is read is {MAX_FILE_BYTES >> 20} MiB"
        )


def open_image(name: str, data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read a file's header and check the size that it announces; the pixels are read later.

    Raises:
        ImageError: Not an image of a known format, or too large.
    """
    known = next((entry for entry in _READERS if data.startswith(entry[0])), None)
    if known is None:
        page = data[:64].lstrip().lower().startswith((b"<!doctype", b"<html"))
        raise ImageError(name, f"not an image: {'an HTML page' if page else 'unknown format'}")
    _, plugin, reader = known
    try:
        opened = getattr(importlib.import_module(f"PIL.{plugin}"), reader)(io.BytesIO(data))
    except Exception as error:  # Pillow's readers raise whatever the bytes lead them to
        raise ImageError(name, f"damaged or not an image: {_short(error)}") from error
    assert isinstance(opened, Image.Image)
    _check_size(name, opened, max_pixels)
    return opened


def _check_size(name: str, image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(
            name, f"{width}x{height} px, the most that is decoded is {max_pixels} px in all"
        )


def _whole(image: Image.Image) -> Decoded:
    return Decoded(image, image.size, (0, 0, *image.size))


def _reduce(image: Image.Image, preprocess: Preprocess) -> tuple[tuple[int, int], _Box] | None:
    """Have a JPEG, of which only the header was read, decoded at a part of its size.

    libjpeg computes 1, 4 or 16 pixels instead of 64 from the lowest frequencies of a block: each
    is about the mean of those that it stands for.

    Returns:
        ``Decoded.size`` and ``Decoded.box``; None where all of it will be decoded.
    """
    turned = _orientation(image) if preprocess.exif else 1
    size = image.size[::-1] if turned in _SIDEWAYS else image.size
    wanted = [preprocess.draft * side for side in preprocess.resized(*size)]
    if turned in _SIDEWAYS:
        wanted.reverse()
    whole = image.size
    drafted = image.draft(None, (wanted[0], wanted[1]))
    if drafted is None or image.size == whole:
        return None
    (columns, rows), (_, _, width, height) = image.size, drafted[1]
    # The part that a last column or row stands for lies first where the image is mirrored.
    left = columns - width if turned in _MIRRORED_X else 0
    upper = rows - height if turned in _MIRRORED_Y else 0
    if turned in _SIDEWAYS:
        left, upper, width, height = upper, left, height, width
    return size, (left, upper, left + width, upper + height)


def _finish(
    name: str, image: Image.Image, mode: str, exif: bool, watch: Watch | None
) -> Image.Image:
    try:
        image.load()
    except Exception as error:  # as above
        raise ImageError(name, f"damaged: {_short(error)}") from error
    turn = _UPRIGHT.get(_orientation(image)) if exif else None
    image = _convert(name, image, mode)
    if watch is not None:
        watch("decode", image)
    if turn is not None:
        image = image.transpose(turn)
    if watch is not None:
        watch("orientation", image)
    return image


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # damaged metadata says nothing about the pixels: taken as upright
        return 1


def _convert(name: str, image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I"):
        image = _high_byte(name, image)
    elif image.mode == "F":
        raise ImageError(name, "has floating-point pixels, expected 8 or 16 bits per channel")
    try:
        if image.mode == mode:
            return image
        if "transparency" in image.info:
            image = image.convert("RGBA")  # otherwise Pillow tries to keep the transparent colour
        return image.convert(mode)
    except ValueError as error:
        raise ImageError(name, f"mode {image.mode} cannot be converted to {mode}") from error


def _high_byte(name: str, image: Image.Image) -> Image.Image:
    codes = np.asarray(image)
    if codes.min(initial=0) < 0 or codes.max(initial=0) > 0xFFFF:
        raise ImageError(name, "has 32-bit pixels, expected 8 or 16 bits per channel")
    return Image.fromarray((codes >> 8).astype(np.uint8))


def _from_array(name: str, array: NDArray[np.uint8]) -> Image.Image:
    if array.dtype != np.uint8:
        raise ImageError(name, f"expected an array of uint8, found {array.dtype}")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)):
        raise ImageError(
            name, f"expected shape (H, W), (H, W, 1) or (H, W, 3), found {array.shape}"
        )
    if array.shape[0] * array.shape[1] > MAX_PIXELS:
        raise ImageError(name, f"{array.shape[1]}x{array.shape[0]} px is too large")
    return Image.fromarray(array)


def _short(error: Exception) -> str:
    """Return an error's first line; Pillow's mention of our buffer says nothing to a user."""
    text = str(error).strip().splitlines()
    return text[0] if text and "BytesIO" not in text[0] else "it cannot be decoded"
