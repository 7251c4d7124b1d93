"""Models in every precision and recipe that was asked for, judged on the same images."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from ...bundle.manifest import Manifest
from ...core.errors import CheckFailedError, DataError, UsageError
from ...core.files import sha256_file
from ...core.progress import Progress
from ...core.values import CALIBRATED, PRECISIONS, Logits, Pixels, Precision
from ...data.images import ImageFile, list_images, select_images
from ...data.labels import Labels, read_labels
from ...data.truth import Truth, match_truth
from ...drift.proportion import wilson
from ...drift.sweep import Point, Sweep, SweptModel, with_front
from ...runtimes import load
from ...targets import get_target
from ..export import ExportedBundle, export
from ..export_options import ExportOptions, check_options
from ..sources import Live, ModelOptions, from_predictor, open_source
from .judging import read_pixels
from .speed import in_turns
from .tune import RecipeName

_BATCH: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepOptions:
    """What is tried.

    Attributes:
        exports: One for each model: the targets, the images that calibrate and tune are the same
            for all; ``out`` takes a folder of bundles for each way, of several models below a
            folder for each.
        data: A folder of images that judge.
        images: How many of them at most.
        truth: Their ground truth.
        precisions: Of which each target gets those that it runs; none is all of them.
        recipes: For calibrated precisions.
        max_drops: Budgets for calibrated precisions, beside none.
    """

    exports: tuple[ExportOptions, ...]
    data: Path
    images: int = 1000
    truth: Path | None = None
    precisions: tuple[Precision, ...] = ()
    recipes: tuple[RecipeName, ...] = ("fast",)
    max_drops: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """A bundle, by the way that made it."""

    name: str
    bundle: ExportedBundle
    reached: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """A model's conversions, not timed yet: all models' are, in turns.

    Attributes:
        found: What is known of them.
        runs: What computes one image with each; None where it is simulated.
    """

    found: Sweep
    runs: tuple[Callable[[], Logits] | None, ...]


def sweep(options: SweepOptions, progress: Progress) -> Sweep:
    """Export every model in every way, and judge each bundle.

    Raises:
        CheckFailedError: No conversion passed its checks; of several those that did are judged.
        UsageError: A precision runs on none of the targets, a recipe has no images to tune on, or
            a model is given twice.
        DataError: Too few images are left to judge, or nothing says what is right on them.
        EdgeclsError: As ``export``.
    """
    _check_tuning(options)
    every = list_images(options.data)
    asked = dict(zip(_names(options.exports), options.exports, strict=True))
    ways = {name: list(_ways(options, name, each)) for name, each in asked.items()}
    for each in (each for all_ways in ways.values() for _, each in all_ways):
        check_options(each)  # all of them, before the first one's minutes
    made: dict[str, list[_Made]] = {name: [] for name in asked}
    truths: dict[str, Truth] = {}
    for model, (way, each) in ((name, way) for name, all_ways in ways.items() for way in all_ways):
        title = way if len(asked) == 1 else f"{model}, {way}"
        progress.step(f"export {title}")
        try:
            result = export(each, progress)
        except CheckFailedError as error:
            progress.note(f"{title} was left out: {error}")
            continue
        missed = {target for found in result.missed for target in found.targets}
        made[model] += [
            _Made(name=way, bundle=one, reached=one.manifest.target not in missed)
            for one in result.bundles
        ]
        if model not in truths:  # before the minutes of the other ways
            truths[model] = _truth(options, each, made[model][0].bundle.manifest, every)
    if not any(made.values()):
        raise CheckFailedError("none of the conversions passed its checks; see the notes above")
    judged = [
        _judged(options, model, asked[model], bundles, every, truths[model], progress)
        for model, bundles in made.items()
        if bundles
    ]
    points = _timed(judged)
    order = options.exports[0].targets
    return msgspec.structs.replace(
        judged[0].found,
        models=tuple(model for one in judged for model in one.found.models),
        points=with_front(sorted(points, key=lambda point: order.index(point.target))),
    )


def _names(exports: Sequence[ExportOptions]) -> list[str]:
    """Return what each model is called: no longer than tells it from the others."""
    sources = [each.source for each in exports]
    names = [Path(source).name if Path(source).exists() else source for source in sources]
    if len(set(names)) < len(names):
        names = sources
    if len(set(names)) < len(names):
        weights = [each.weights.name if each.weights else "" for each in exports]
        names = [f"{name} {file}".strip() for name, file in zip(names, weights, strict=True)]
    folders = Counter(_folder(name) for name in names)
    twice = [name for name in names if folders[_folder(name)] > 1]
    if twice:
        raise UsageError(
            f"{' and '.join(twice)} would be one folder; give each MODEL once, and checkpoints "
            "names of their own"
        )
    return names


def _folder(name: str) -> str:
    return re.sub(r"[^\w.+-]+", "-", name).strip("-.")


def _ways(
    options: SweepOptions, model: str, export: ExportOptions
) -> Iterator[tuple[str, ExportOptions]]:
    """Yield each way's name and its export."""
    out = export.out / _folder(model) if len(options.exports) > 1 else export.out
    targets = [get_target(name) for name in export.targets]
    wanted = dict.fromkeys(options.precisions or PRECISIONS)
    for precision in wanted:
        able = tuple(target.name for target in targets if precision in target.precisions)
        if not able:
            if options.precisions:
                raise UsageError(f"none of the targets runs {precision}")
            continue
        plain = replace(export, targets=able, precision=precision)
        if precision not in CALIBRATED:
            bare = replace(plain, tune=None, tune_truth=None, calib_table=None)
            yield precision, replace(bare, out=out / precision)
            continue
        budgets: tuple[float | None, ...] = (None, *dict.fromkeys(options.max_drops))
        for recipe, budget in itertools.product(dict.fromkeys(options.recipes), budgets):
            tuned = recipe == "best" or budget is not None
            name = precision + ", best" * (recipe == "best")
            name += f", {budget:g} points" if budget is not None else ""
            yield name, replace(
                plain, recipe=recipe, max_drop=budget,
                tune=export.tune if tuned else None,
                tune_truth=export.tune_truth if tuned else None,
                out=out / _folder(name.replace(", ", "-")),
            )  # fmt: skip


def _check_tuning(options: SweepOptions) -> None:
    """Raise UsageError where something that was asked for would change nothing."""
    tuned = bool(options.max_drops) or "best" in options.recipes
    if tuned and options.precisions and not set(options.precisions) & CALIBRATED.keys():
        names = " or ".join(sorted(CALIBRATED))
        raise UsageError(f"--max-drop and --recipe best are for {names}; add --precision {names}")
    if not tuned and any(each.tune or each.tune_truth for each in options.exports):
        raise UsageError(
            "--tune is for --max-drop POINTS or --recipe best; give one, or leave --tune out"
        )


def _truth(
    options: SweepOptions, asked: ExportOptions, manifest: Manifest, every: Sequence[ImageFile]
) -> Truth:
    labels = read_labels(asked.labels) if asked.labels else None
    if labels is None and manifest.labels is not None:
        labels = Labels(names=manifest.labels, synsets=manifest.synsets)
    truth = match_truth(every, num_classes=manifest.num_classes, labels=labels, truth=options.truth)
    if truth is None:
        raise DataError(
            f"{options.data} has no class folders: accuracy needs ground truth; give --truth FILE"
        )
    return truth


def _timed(judged: Sequence[_Judged]) -> list[Point]:
    """Return all models' conversions with their times."""
    pairs = [pair for one in judged for pair in zip(one.found.points, one.runs, strict=True)]
    times = iter(in_turns([run for _, run in pairs if run is not None]))
    return [
        point if run is None else msgspec.structs.replace(point, latency_ms=next(times))
        for point, run in pairs
    ]


def _judged(
    options: SweepOptions,
    model: str,
    asked: ExportOptions,
    made: Sequence[_Made],
    every: Sequence[ImageFile],
    truth: Truth,
    progress: Progress,
) -> _Judged:
    first = made[0].bundle.manifest
    known = frozenset(
        sha256_file(image.path)
        for folder in (asked.calib, asked.tune)
        if folder is not None
        for image in list_images(folder)
    )
    reference = open_source(
        asked.source,
        ModelOptions(
            weights=asked.weights, num_classes=asked.num_classes, preprocess=asked.preprocess
        ),
        preprocess=first.preprocess,
    )
    assert isinstance(reference, Live)
    kept = read_pixels(
        select_images(every, options.images, asked.seed), first.preprocess, size=reference.size,
        known=known, option="--data", progress=progress,
    )  # fmt: skip
    right = truth.of(kept.images)
    float_top1 = 100 * float((_answers(reference, kept.pixels) == right).mean())
    sources = [
        from_predictor(load(one.bundle.path, allow_fallback=True, threads=1)) for one in made
    ]
    points = []
    for one, source in zip(made, sources, strict=True):
        assert source.predictor is not None
        count = int((_answers(source, kept.pixels) == right).sum())
        low, high = wilson(count, len(right))
        artefact, manifest = source.predictor.artefact, one.bundle.manifest
        points.append(
            Point(
                model=model,
                name=one.name,
                target=manifest.target,
                precision=manifest.precision,
                bundle=str(one.bundle.path),
                reached=one.reached,
                top1=100 * count / len(right),
                lower=100 * low,
                upper=100 * high,
                drop=float_top1 - 100 * count / len(right),
                size_bytes=manifest.files[artefact.path].size_bytes,
                left_float=len(manifest.tuning.left_float) if manifest.tuning else 0,
                backend=source.predictor.backend,
                simulated=source.predictor.fell_back is not None,
                latency_ms=None,
            )
        )
    found = Sweep(
        models=(SweptModel(name=model, float_top1=float_top1),),
        images=len(right),
        overlap=kept.overlap,
        truth=truth.how,
        points=tuple(points),
    )
    runs = (
        None if point.simulated else partial(source.logits, kept.pixels[:1])
        for point, source in zip(points, sources, strict=True)
    )
    return _Judged(found=found, runs=tuple(runs))


def _answers(source: Live, pixels: Pixels) -> NDArray[np.intp]:
    """Return the classes that a source answers, shape (N,)."""
    starts = range(0, len(pixels), _BATCH)
    return np.concatenate(
        [source.logits(pixels[start : start + _BATCH]).argmax(1) for start in starts]
    )
