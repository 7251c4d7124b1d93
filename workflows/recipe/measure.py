"""What a stage's file is worth: its answers, its size and its time, beside other files."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from ...bundle import Bundle
from ...bundle.recipe import Estimate, RecipeStep, Timing
from ...core.errors import DataError, ImageError
from ...core.progress import Progress
from ...core.values import Pixels
from ...data.images import list_images
from ...drift.baseline import Baseline, read_baseline
from ...runtimes import Predictor, load
from ...runtimes.backends import formats_of, why_not
from ...runtimes.preprocess import to_pixels
from ...targets import Target, get_target
from ..answering import DataOptions
from ..compared import Difference, Rights, accuracy, difference
from ..drift import save_baseline
from ..sources import from_predictor
from ..speed import ratio_of, time_in_turn

_TIMED_IMAGES: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A stage's file.

    Attributes:
        bundle: That holds it.
        answers: Where its answers are kept.
        key: The hash of all that the row depends on.
        row: What is known of it.
    """

    bundle: Path
    answers: Path
    key: str
    row: RecipeStep


def runs_here(target: Target) -> bool:
    """Return whether a backend of the target can run its files on this machine."""
    return any(
        target.ships in formats_of(name) and why_not(name) is None for name in target.backends
    )


def first_that_runs(targets: Sequence[str]) -> str:
    """Return the first target whose files run here; the first where none does."""
    return next((name for name in targets if runs_here(get_target(name))), targets[0])


def measure(
    bundle: Path, answers: Path, *, stage: str, given: Mapping[str, Any], data: DataOptions,
    before: Point | None, start: Point | None, progress: Progress,
) -> RecipeStep:  # fmt: skip
    """Ask a bundle about every image, and keep its answers.

    Args:
        bundle: Whose primary file is measured, simulated where it cannot run here.
        answers: Where its answers are kept.
        stage: What made it.
        given: What was asked of that.
        data: The images that judge.
        before: The file of the stage before.
        start: That of the model at the start.
        progress: Shows how far it is.

    Raises:
        DataError: The images have no ground truth.
    """
    with contextlib.ExitStack() as stack:
        predictor = _open(bundle, stack)
        baseline, _ = save_baseline(from_predictor(predictor), data, answers, progress)
        manifest = predictor.bundle.manifest
        primary = manifest.artefacts[0]
        found = accuracy(_rights(baseline, sorted(baseline.images)))
        return RecipeStep(
            stage=stage, options=dict(given), target=manifest.target,
            precision=primary.precision, parameters=manifest.model.parameters,
            size_bytes=manifest.files[primary.path].size_bytes, images=found.images,
            top1=Estimate(value=found.top1, low=found.low, high=found.high),
            points=_points(baseline, before), points_from_start=_points(baseline, start),
        )  # fmt: skip


def time_all(points: Sequence[Point], data: DataOptions) -> tuple[Timing | None, ...]:
    """Time files of one target in turn; None of those that do not run here.

    Args:
        points: In the order of their stages, the start first.
        data: Gives the images.
    """
    with contextlib.ExitStack() as stack:
        opened = [_open(point.bundle, stack) for point in points]
        live = [place for place, found in enumerate(opened) if found.fell_back is None]
        if not live:
            return (None,) * len(points)
        times = dict(
            zip(
                live,
                time_in_turn([opened[place] for place in live], _pixels(opened[0], data)),
                strict=True,
            )
        )

    def speedup(place: int, other: int) -> Estimate | None:
        if place == 0 or other not in times:
            return None
        ratio = ratio_of(times[place], times[other])
        return Estimate(value=1 / ratio.value, low=1 / ratio.high, high=1 / ratio.low)

    return tuple(
        Timing(
            ms=1e3 * float(np.median(times[place])), against_before=speedup(place, place - 1),
            against_start=speedup(place, 0),
        )
        if place in times
        else None
        for place in range(len(points))
    )  # fmt: skip


def _open(bundle: Path, stack: contextlib.ExitStack) -> Predictor:
    predictor = load(Bundle(bundle), allow_fallback=True, threads=1)
    stack.callback(predictor.close)
    return predictor


def _rights(baseline: Baseline, names: Sequence[str]) -> Rights:
    kept = [baseline.images.get(name) for name in names]
    if any(one is not None and one.truth is None for one in kept):
        raise DataError(
            "the images that judge a recipe need ground truth: sort them into class folders, or "
            "give --truth FILE"
        )
    return np.asarray([-1 if one is None else one.top1 == one.truth for one in kept], np.int8)


def _points(mine: Baseline, other: Point | None) -> Estimate | None:
    if other is None:
        return None
    theirs = read_baseline(other.answers)
    names = sorted(set(mine.images) | set(theirs.images))
    gap: Difference = difference(_rights(mine, names), _rights(theirs, names))
    # Adding 0 makes -0 a 0.
    return Estimate(value=gap.points + 0.0, low=gap.low + 0.0, high=gap.high + 0.0)


def _pixels(predictor: Predictor, data: DataOptions) -> Pixels:
    """Return the first images that can be read."""
    assert data.data is not None
    found: list[Pixels] = []
    for image in list_images(data.data):
        with contextlib.suppress(ImageError):  # the answers list it
            preprocess = predictor.bundle.manifest.preprocess
            found.append(to_pixels(image.path, preprocess, size=predictor.input_size))
        if len(found) == _TIMED_IMAGES:
            break
    return np.stack(found)
