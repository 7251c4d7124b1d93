"""RandAugment's operations, with torchvision's ranges.

Source: Cubuk et al. 2019, arXiv:1909.13719; magnitudes as torchvision's ``v2.RandAugment``, on 31
steps.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from PIL import Image

MAX_MAGNITUDE: Final = 30
_OPERATIONS: Final = 2
_SIGNED: Final = {
    "shear_x": 0.3, "shear_y": 0.3, "translate_x": 150 / 331, "translate_y": 150 / 331,
    "rotate": 30.0, "brightness": 0.9, "color": 0.9, "contrast": 0.9, "sharpness": 0.9,
}  # fmt: skip
_OTHERS: Final = ("identity", "posterize", "solarize", "autocontrast", "equalize")
NAMES: Final = (*_SIGNED, *_OTHERS)


def rand_augment(
    functional: Any, image: Image.Image, magnitude: int, draw: np.random.Generator
) -> Image.Image:
    """Apply two operations of the same magnitude, drawn with replacement.

    Args:
        functional: torchvision's ``transforms.v2.functional``.
        image: Of mode "RGB" or "L".
        magnitude: 0..30.
        draw: Chooses the operations and their signs.
    """
    for name in draw.choice(NAMES, size=_OPERATIONS).tolist():
        sign = 1 if draw.random() < 0.5 else -1
        image = apply(functional, image, name, magnitude, sign)
    return image


def apply(functional: Any, image: Image.Image, name: str, magnitude: int, sign: int) -> Image.Image:
    """Return what one operation makes of an image."""
    amount = sign * _SIGNED.get(name, 0.0) * magnitude / MAX_MAGNITUDE
    if name in {"shear_x", "shear_y", "translate_x", "translate_y", "rotate"}:
        changed = _moved(functional, image, name, amount)
    elif name in {"brightness", "contrast", "sharpness"}:
        changed = getattr(functional, f"adjust_{name}")(image, 1 + amount)
    elif name == "color":
        grey = image.mode == "L"
        changed = image if grey else functional.adjust_saturation(image, 1 + amount)
    elif name == "posterize":
        changed = functional.posterize(image, 8 - round(4 * magnitude / MAX_MAGNITUDE))
    elif name == "solarize":
        # One less than torchvision's 255 at magnitude 0 would change white.
        threshold = 255 * (1 - magnitude / MAX_MAGNITUDE)
        changed = functional.solarize(image, threshold) if magnitude else image
    elif name == "identity":
        changed = image
    else:
        changed = getattr(functional, name)(image)
    assert isinstance(changed, Image.Image)
    return changed


def _moved(functional: Any, image: Image.Image, name: str, amount: float) -> Any:
    nearest = functional.InterpolationMode.NEAREST
    if name == "rotate":
        return functional.rotate(image, amount, interpolation=nearest)
    shear, translate = [0.0, 0.0], [0, 0]
    center = None
    if name.startswith("shear"):
        shear[name == "shear_y"] = float(np.degrees(np.arctan(amount)))
        center = [0, 0]
    elif name == "translate_x":
        translate[0] = int(amount * image.width)
    else:
        translate[1] = int(amount * image.height)
    return functional.affine(
        image, angle=0.0, translate=translate, scale=1.0, shear=shear, interpolation=nearest,
        center=center,
    )  # fmt: skip
