"""In which stages two preprocessings differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np

from ...core.errors import DataError
from ...core.preprocess import Preprocess, Size
from ...drift.explanation import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A stage of the preprocessing that differs.

    Attributes:
        stage: Which.
        expected: The reference's, for humans.
        found: The candidate's.
        fields: What the candidate has in the stage's fields.
    """

    stage: Stage
    expected: str
    found: str
    fields: dict[str, Any]


def _orientation(preprocess: Preprocess) -> str:
    return "EXIF applied" if preprocess.exif else "EXIF ignored"


def _color(preprocess: Preprocess) -> str:
    return preprocess.color.upper()


def _geometry(preprocess: Preprocess) -> str:
    resize, crop = preprocess.resize, preprocess.crop
    if isinstance(resize, tuple):
        steps = [f"squashed to {_size(resize)}"]
    else:
        steps = [f"shorter side to {resize}"] if resize else []
    if crop:
        steps.append(f"centre crop {_size(crop)}")
    return ", ".join(steps) or "as it is"


def _filter(preprocess: Preprocess) -> str:
    plain = preprocess.interpolation == "nearest" or not preprocess.antialias
    drafted = f", JPEG reduced to no less than {preprocess.draft} times the size"
    text = f"{preprocess.interpolation} {'without' if plain else 'with'} antialiasing"
    return text + drafted if preprocess.draft else text


def _normalisation(preprocess: Preprocess) -> str:
    mean, std = (" ".join(f"{x:g}" for x in getattr(preprocess, n)) for n in ("mean", "std"))
    return f"mean {mean}, std {std}, scale {preprocess.scale:g}"


def _size(size: Size) -> str:
    height, width = size if isinstance(size, tuple) else (size, size)
    return f"{width}x{height}"


# In the order in which an image meets them. Each is swapped as a whole.
_STAGES: Final[tuple[tuple[Stage, tuple[str, ...], Callable[[Preprocess], str]], ...]] = (
    ("orientation", ("exif",), _orientation),
    ("channel order", ("color",), _color),
    ("resize and crop", ("resize", "crop"), _geometry),
    ("interpolation", ("interpolation", "antialias", "draft"), _filter),
    ("normalisation", ("scale", "mean", "std"), _normalisation),
)


def differences(
    expected: Preprocess, found: Preprocess
) -> tuple[tuple[Difference, ...], tuple[Stage, ...]]:
    """Return the stages that differ, and those that do not.

    Raises:
        DataError: They give different numbers of channels: no stage can be swapped alone.
    """
    if expected.channels != found.channels:
        raise DataError(
            f"the reference takes {expected.color} images, the candidate {found.color}: their "
            "stages cannot be swapped one at a time"
        )
    differing, same = [], list[Stage]()
    for stage, fields, describe in _STAGES:
        theirs = {field: getattr(found, field) for field in fields}
        if _alike(stage, expected, msgspec.structs.replace(expected, **theirs)):
            same.append(stage)
            continue
        differing.append(
            Difference(
                stage=stage, expected=describe(expected), found=describe(found), fields=theirs
            )
        )
    return tuple(differing), tuple(same)


def _alike(stage: Stage, one: Preprocess, other: Preprocess) -> bool:
    """Return whether two spellings mean the same, such as scale 1 with mean 127."""
    if stage == "normalisation":
        return bool(np.allclose(one.table(), other.table(), rtol=1e-6, atol=1e-6))
    return one == other
