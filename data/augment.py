"""Random changes to training images, through torchvision's transforms (v2).

What happens to an image depends on the seed, the epoch and the image's place in the data set only:
the parameters are drawn here, by a generator of the image's own, because torchvision's transform
classes draw from torch's one generator, whose state depends on the order in which threads run.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..core.errors import UsageError
from ..core.preprocess import Preprocess
from ..core.torchvision_ops import import_torchvision
from ..core.values import Pixels, Tensor
from .rand_augment import MAX_MAGNITUDE, rand_augment

_SMALL: Final = 64


class Augment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which changes, and how strong; the defaults change nothing.

    Attributes:
        crop: "pad" shifts the image: it is padded with black by an eighth and cropped to its size;
            "resized" takes a part of ``area`` and resizes it; "auto" is "pad" up to 64 px, above
            "resized".
        area: The part's share of the image, from and to.
        flip: The probability of a mirror image.
        rotate: In degrees, to either side at most.
        scale: The largest factor is 1 + scale, the smallest 1 - scale.
        color: The largest change of brightness, contrast and saturation, as a factor 1 +- color.
        rand_augment: The magnitude of RandAugment's two operations, 0..30; 0 is none.
        mixup: Alpha of the Beta distribution of mixup; 0 is none.
        cutmix: Alpha of cutmix; with both, each batch has the one or the other.
    """

    crop: Literal["none", "pad", "resized", "auto"] = "none"
    area: tuple[float, float] = (0.25, 1.0)
    flip: float = 0.0
    rotate: float = 0.0
    scale: float = 0.0
    color: float = 0.0
    rand_augment: int = 0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        limits = {"flip": 1, "rotate": 180, "scale": 0.99, "color": 1, "mixup": 100, "cutmix": 100}
        for name, most in limits.items():
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"{name} must lie in 0..{most}, found {getattr(self, name)}")
        if not 0 <= self.rand_augment <= MAX_MAGNITUDE:
            raise ValueError(f"rand_augment must lie in 0..{MAX_MAGNITUDE}")
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise ValueError(f"area must be two shares of the image, rising, found {self.area}")

    @property
    def mixes(self) -> bool:
        """Whether labels become probabilities."""
        return self.mixup > 0 or self.cutmix > 0

    @property
    def changes_images(self) -> bool:
        """Whether any single image is changed."""
        return self.crop != "none" or any(
            (self.flip, self.rotate, self.scale, self.color, self.rand_augment)
        )

    def reading(self, preprocess: Preprocess) -> Preprocess:
        """Return how images are read: a random crop needs what the centre crop would cut off."""
        if self._crop_of(preprocess) != "resized" or not preprocess.crop:
            return preprocess
        return msgspec.structs.replace(preprocess, crop=0)

    def _crop_of(self, preprocess: Preprocess) -> Literal["none", "pad", "resized"]:
        if self.crop != "auto":
            return self.crop
        size = preprocess.output_size
        return "resized" if size is not None and min(size) > _SMALL else "pad"


PRESETS: Final[dict[str, Augment]] = {
    "none": Augment(),
    # For digits and letters: a mirror makes another one of them.
    "shift": Augment(crop="pad"),
    "light": Augment(crop="auto", flip=0.5),
    "standard": Augment(crop="auto", flip=0.5, color=0.2, rotate=10, scale=0.1),
    "strong": Augment(crop="auto", flip=0.5, rand_augment=9, mixup=0.2, cutmix=1.0),
}


def resolve_augment(name: str) -> Augment:
    """Return a preset.

    Raises:
        UsageError: There is none of that name.
    """
    if name not in PRESETS:
        raise UsageError(f"augmentation {name!r} is none of {', '.join(PRESETS)}")
    return PRESETS[name]


def generator(*parts: object) -> np.random.Generator:
    """Return a random generator that depends on ``parts`` only."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    # Philox takes the hash as it is; a seed would be hashed once more, which takes longer.
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


def augment_pixels(
    pixels: Pixels, augment: Augment, preprocess: Preprocess, draw: np.random.Generator
) -> Pixels:
    """Change one image.

    Args:
        pixels: Shape (H, W, C), uint8, read as ``augment.reading(preprocess)`` says.
        augment: What to do.
        preprocess: The model's; its output size is the result's.
        draw: Chooses.

    Returns:
        Shape (H, W, C), uint8, channels in the same order.

    Raises:
        MissingPackageError: torchvision is not installed.
    """
    functional = _functional()
    backwards = preprocess.color == "bgr"
    codes = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels[:, :, ::-1] if backwards else pixels
    image = Image.fromarray(np.ascontiguousarray(codes))
    filters = functional.InterpolationMode
    height, width = preprocess.output_size or (image.height, image.width)
    kind = augment._crop_of(preprocess)
    if kind == "resized":
        box = _part(image.height, image.width, augment.area, draw)
        how = filters(preprocess.interpolation)
        image = functional.resized_crop(image, *box, size=[height, width], interpolation=how)
    elif kind == "pad":
        side, up = math.ceil(image.width / 8), math.ceil(image.height / 8)
        left, top = int(draw.integers(2 * side + 1)), int(draw.integers(2 * up + 1))
        image = functional.crop(image, top - up, left - side, image.height, image.width)
    if augment.flip and draw.random() < augment.flip:
        image = functional.horizontal_flip(image)
    if augment.rotate or augment.scale:
        image = functional.affine(
            image,
            angle=draw.uniform(-augment.rotate, augment.rotate),
            translate=[0, 0],
            scale=draw.uniform(1 - augment.scale, 1 + augment.scale),
            shear=[0.0, 0.0],
            interpolation=filters.BILINEAR,
        )
    if augment.color:
        for change in ("brightness", "contrast", "saturation"):
            factor = draw.uniform(1 - augment.color, 1 + augment.color)
            if change != "saturation" or image.mode == "RGB":
                image = getattr(functional, f"adjust_{change}")(image, factor)
    if augment.rand_augment:
        image = rand_augment(functional, image, augment.rand_augment, draw)
    found: NDArray[np.uint8] = np.asarray(image)
    if found.ndim == 2:
        return found[:, :, None]
    return found[:, :, ::-1] if backwards else found


def mix_batch(
    images: Tensor, labels: NDArray[np.int64], classes: int, augment: Augment,
    draw: np.random.Generator,
) -> tuple[Tensor, NDArray[np.float32]]:  # fmt: skip
    """Mix each image of a batch with another one, by mixup or cutmix.

    Args:
        images: Shape (B, C, H, W), float32.
        labels: Class indices, shape (B,).
        classes: How many there are.
        augment: Says which; where both, ``draw`` chooses.
        draw: Its next number seeds torchvision's draws.

    Returns:
        The images, and the probabilities of the classes, shape (B, classes), float32.

    Raises:
        MissingPackageError: torchvision is not installed.
    """
    import torch

    transforms = import_torchvision_transforms()
    both = augment.mixup > 0 and augment.cutmix > 0
    mixup = augment.mixup > 0 and (not both or draw.random() < 0.5)
    mix = (
        transforms.MixUp(alpha=augment.mixup, num_classes=classes)
        if mixup
        else transforms.CutMix(alpha=augment.cutmix, num_classes=classes)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(draw.integers(2**62)))
        mixed, soft = mix(torch.from_numpy(images), torch.from_numpy(labels))
    return mixed.numpy(), soft.numpy().astype(np.float32)


def import_torchvision_transforms() -> Any:
    """Return torchvision's ``transforms.v2``.

    Raises:
        MissingPackageError: torchvision is not installed.
    """
    import_torchvision()
    from torchvision.transforms import v2

    return v2


def _functional() -> Any:
    return import_torchvision_transforms().functional


def _part(
    height: int, width: int, area: tuple[float, float], draw: np.random.Generator
) -> tuple[int, int, int, int]:
    """Return (top, left, height, width) of a part of a share in ``area`` and of ratio 3:4 to 4:3.

    Source: Szegedy et al. 2014, arXiv:1409.4842, as torchvision's RandomResizedCrop draws it.
    """
    for _ in range(10):
        share = height * width * draw.uniform(*area)
        ratio = math.exp(draw.uniform(math.log(3 / 4), math.log(4 / 3)))
        wide, high = round(math.sqrt(share * ratio)), round(math.sqrt(share / ratio))
        if 0 < wide <= width and 0 < high <= height:
            top, left = draw.integers(height - high + 1), draw.integers(width - wide + 1)
            return int(top), int(left), high, wide
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side, side
