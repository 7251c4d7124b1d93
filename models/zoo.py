"""Architectures from timm and torchvision, with the preprocessing that they bring. No downloads."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from typing import Any, Final

import torch

from ..core.errors import ModelError
from ..core.preprocess import Interpolation, Preprocess
from ..core.torchvision_ops import import_timm, import_torchvision

# These two warn unless the first choice is made, and their own initialisation takes long. The
# second is how torchvision builds them for its own weights, and no checkpoint tells.
_INCEPTION_ARGUMENTS: Final = {"init_weights": False, "transform_input": True}
_INCEPTIONS: Final = ("googlenet", "inception_v3")
_INTERPOLATIONS: Final[dict[str, Interpolation]] = {
    "nearest": "nearest",
    "bilinear": "bilinear",
    "bicubic": "bicubic",
    "lanczos": "lanczos",
    "box": "box",
    "hamming": "hamming",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A module with its initial weights, and what its source knows about it.

    Attributes:
        random: Whether nobody has trained these weights, as far as is known.
        look_alike: Another architecture that takes the same weights and answers differently.
    """

    module: torch.nn.Module
    num_classes: int | None
    preprocess: Preprocess | None = None
    input_size: tuple[int, int, int] | None = None
    look_alike: str | None = None
    random: bool = True
    notes: tuple[str, ...] = ()


def build_timm(name: str, num_classes: int | None) -> Architecture:
    """Build a timm model, e.g. "resnet18" or "resnet18.a1_in1k" (the tag chooses preprocessing).

    Raises:
        ModelError: timm has no such model.
        MissingPackageError: timm or torchvision is not installed.
    """
    timm = import_timm()
    if not timm.is_model(name):
        raise ModelError(_unknown("timm", name, timm.list_models()))
    arguments = {} if num_classes is None else {"num_classes": num_classes}
    try:
        module = timm.create_model(name, pretrained=False, **arguments)
    except (RuntimeError, ValueError) as error:  # e.g. a tag that the architecture does not have
        raise ModelError(f"timm cannot build {name!r}: {error}") from error
    if module.num_classes < 1:
        raise ModelError(f"timm's {name!r} has no head of its own; give --num-classes")
    config = timm.data.resolve_model_data_config(module)
    preprocess, notes = _timm_preprocess(config)
    twin = name.removeprefix("tf_") if name.startswith("tf_") else f"tf_{name}"
    return Architecture(
        module=module,
        num_classes=int(module.num_classes),
        preprocess=preprocess,
        input_size=tuple(config["input_size"]),
        # They differ in padding and in batch norm's epsilon, which no weight shows.
        look_alike=f"timm:{twin}" if timm.is_model(twin) else None,
        notes=notes,
    )


def build_torchvision(name: str, num_classes: int | None) -> Architecture:
    """Build a torchvision classifier.

    Raises:
        ModelError: torchvision has no such classifier.
        MissingPackageError: torchvision is not installed.
    """
    models = import_torchvision().models
    names = models.list_models(module=models)
    if name not in names:
        raise ModelError(_unknown("torchvision", name, names))
    weights = models.get_model_weights(name).DEFAULT
    classes = len(weights.meta["categories"]) if num_classes is None else num_classes
    extra = _INCEPTION_ARGUMENTS if name in _INCEPTIONS else {}
    module = models.get_model(name, weights=None, num_classes=classes, **extra)
    preprocess = _torchvision_preprocess(weights.transforms())
    size = preprocess.output_size
    return Architecture(
        module=module,
        num_classes=classes,
        preprocess=preprocess,
        input_size=None if size is None else (3, *size),
        notes=("built with transform_input=True, as torchvision's own weights need it",)
        if extra
        else (),
    )


def _torchvision_preprocess(preset: Any) -> Preprocess:
    return Preprocess(
        resize=_square(list(preset.resize_size)),
        crop=_square(list(preset.crop_size)),
        interpolation=_INTERPOLATIONS[preset.interpolation.value],
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )


def _timm_preprocess(config: dict[str, Any]) -> tuple[Preprocess | None, tuple[str, ...]]:
    """Translate timm's data config as its own evaluation transforms read it."""
    channels, height, width = config["input_size"]
    mode, interpolation = config["crop_mode"], config["interpolation"]
    scaled = (math.floor(height / config["crop_pct"]), math.floor(width / config["crop_pct"]))
    if mode == "center" and height == width:
        resize: int | tuple[int, int] = scaled[0]
    elif mode == "squash":
        resize = scaled
    else:
        return None, (_no_preprocess(f"crop mode {mode!r} at {height}x{width}"),)
    if channels not in {1, 3} or interpolation not in _INTERPOLATIONS:
        return None, (_no_preprocess(f"{channels} channels, interpolation {interpolation!r}"),)
    preprocess = Preprocess(
        color="gray" if channels == 1 else "rgb",
        resize=resize,
        crop=_square([height, width]),
        interpolation=_INTERPOLATIONS[interpolation],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )
    return preprocess, ()


def _no_preprocess(what: str) -> str:
    return f"timm's preprocessing ({what}) has no equal here; give --preprocess"


def _square(size: list[int]) -> int | tuple[int, int]:
    return size[0] if len(size) == 1 or size[0] == size[1] else (size[0], size[1])


def _unknown(zoo: str, name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=5, cutoff=0.6)
    hint = f"did you mean {', '.join(close)}?" if close else f"it has {len(names)} others"
    return f"{zoo} has no classifier {name!r}; {hint}"
