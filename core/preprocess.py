"""Preprocessing as data: decided once, stored in the bundle, read by every stage and device."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal, get_args

import msgspec
import numpy as np

from .errors import PreprocessError
from .values import Pixels, Tensor

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
Size = int | tuple[int, int]

PixelStep = Literal["decode", "orientation", "resize", "crop", "channel order"]
"""What makes pixels of an image file; "decode" includes the conversion to RGB or grey."""

PIXEL_STEPS: Final[tuple[PixelStep, ...]] = get_args(PixelStep)
"""In the order in which an image meets them."""


class Preprocess(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From an image file to a model's input.

    Attributes:
        color: The order of the channels that the model expects; "gray" has one.
        resize: Shorter side in px, the aspect kept; (height, width) squashes; 0 keeps the size.
        crop: Centre crop in px, a square or (height, width); 0 keeps all. Where the image is
            smaller than the crop it is padded with black.
        interpolation: Pillow's filter of that name.
        antialias: Whether a smaller image is filtered over all pixels that a new one covers;
            without it "bilinear" takes four pixels and "nearest" one, whatever the factor.
        scale: What a pixel's code is divided by.
        mean: Subtracted after the division, one per channel.
        std: Divided by, one per channel: tensor = (pixel / scale - mean) / std.
        exif: Whether the orientation that a camera stored is applied.
        draft: 0 decodes all of a JPEG file. Otherwise it is decoded at 1/2, 1/4 or 1/8 of its
            size: the least at which both sides are at least ``draft`` times what ``resize`` makes
            of them. Nothing else is: no other format, no array, no Pillow image, and nothing
            where ``resize`` is 0.
    """

    color: Literal["rgb", "bgr", "gray"] = "rgb"
    resize: Size = 256
    crop: Size = 224
    interpolation: Interpolation = "bicubic"
    scale: float = 255.0
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    exif: bool = True
    antialias: bool = True
    draft: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        channels = self.channels
        if len(self.mean) != channels or len(self.std) != channels:
            raise ValueError(
                f"color {self.color!r} needs {channels} values of mean and std, "
                f"found {len(self.mean)} and {len(self.std)}"
            )
        if not all(np.isfinite([self.scale, *self.mean, *self.std])):
            raise ValueError("scale, mean and std must be finite")
        if self.scale <= 0 or min(self.std) <= 0:
            raise ValueError("scale and std must be positive")
        with np.errstate(over="ignore"):
            finite = np.isfinite(self.table()).all()
        if not finite:
            raise ValueError(
                f"scale {self.scale:g} and std {self.std} make values that float32 does not hold"
            )
        if not self.antialias and self.interpolation not in {"nearest", "bilinear"}:
            raise ValueError(
                f"antialias = false needs interpolation nearest or bilinear, found "
                f"{self.interpolation}"
            )
        if not 0 <= self.draft <= MAX_DRAFT:
            raise ValueError(f"draft must lie in 0..{MAX_DRAFT}, found {self.draft}")
        if self.draft and (not self.antialias or self.interpolation == "nearest"):
            # A few pixels of the reduced image are others than the same few of the whole one.
            raise ValueError("draft needs antialias = true and another interpolation than nearest")
        for name, size in (("resize", self.resize), ("crop", self.crop)):
            sizes = size if isinstance(size, tuple) else (size,)
            lowest = 1 if isinstance(size, tuple) else 0
            if min(sizes) < lowest or max(sizes) > MAX_SIDE:
                raise ValueError(f"{name} must lie in {lowest}..{MAX_SIDE} px, found {size}")

    @property
    def channels(self) -> int:
        """The number of channels: 1 or 3."""
        return 1 if self.color == "gray" else 3

    @property
    def output_size(self) -> tuple[int, int] | None:
        """(height, width) of every result; None where it depends on the image."""
        size = self.crop or (self.resize if isinstance(self.resize, tuple) else 0)
        if not size:
            return None
        return size if isinstance(size, tuple) else (size, size)

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Return (width, height) after the resize of an upright image."""
        if isinstance(self.resize, tuple):
            return self.resize[1], self.resize[0]
        if self.resize == 0:
            return width, height
        if width <= height:
            return self.resize, int(self.resize * height / width)
        return int(self.resize * width / height), self.resize

    def table(self) -> Tensor:
        """Return the value of each code, shape (channels, 256), float32.

        Computed in float64 and rounded once, so that every machine has the same values.
        """
        codes = np.arange(256, dtype=np.float64) / self.scale
        mean = np.asarray(self.mean, np.float64)[:, None]
        std = np.asarray(self.std, np.float64)[:, None]
        return ((codes - mean) / std).astype(np.float32)

    def normalize(self, pixels: Pixels, out: Tensor | None = None) -> Tensor:
        """Return pixels (N, H, W, C) uint8 as a tensor (N, C, H, W) float32; it may be ``out``."""
        table = self.table()
        if out is None:
            count, height, width, _ = pixels.shape
            out = np.empty((count, self.channels, height, width), np.float32)
        for channel in range(self.channels):
            # A code is never out of range; "clip" writes into ``out`` without a copy.
            np.take(table[channel], pixels[..., channel], out=out[:, channel], mode="clip")
        return out


MAX_SIDE: Final = 8192
MAX_DRAFT: Final = 4

_IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
_IMAGENET_STD: Final = (0.229, 0.224, 0.225)

PRESETS: Final[dict[str, Preprocess]] = {
    "imagenet": Preprocess(mean=_IMAGENET_MEAN, std=_IMAGENET_STD),
    "inception": Preprocess(resize=256, crop=224, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    "mnist": Preprocess(
        color="gray",
        resize=(28, 28),
        crop=0,
        interpolation="bilinear",
        mean=(0.1307,),
        std=(0.3081,),
    ),
    "cifar10": Preprocess(resize=0, crop=0, mean=_IMAGENET_MEAN, std=_IMAGENET_STD),
}


class _PreprocessFile(msgspec.Struct):
    preprocess: Preprocess


def resolve_preprocess(name_or_file: str) -> Preprocess:
    """Return a preset by its name, or what the ``[preprocess]`` table of a TOML file says.

    Raises:
        PreprocessError: Neither a preset nor a readable file, or a value that is not valid.
    """
    preset = PRESETS.get(name_or_file)
    if preset is not None:
        return preset
    path = Path(name_or_file)
    if not path.is_file():
        raise PreprocessError(
            f"preprocess {name_or_file!r} is neither a preset ({', '.join(PRESETS)}) nor a file"
        )
    try:
        return msgspec.toml.decode(path.read_bytes(), type=_PreprocessFile).preprocess
    except (msgspec.DecodeError, ValueError, OSError) as error:
        raise PreprocessError(f"{path}: {error}; see docs/preprocess.md for the keys") from error
