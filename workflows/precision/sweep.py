"""One model in every precision and recipe that was asked for, judged on the same images."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...core.errors import CheckFailedError, DataError, UsageError
from ...core.files import sha256_file
from ...core.progress import Progress
from ...core.values import CALIBRATED, PRECISIONS, Pixels, Precision
from ...data.images import list_images, select_images
from ...data.labels import Labels, read_labels
from ...data.truth import match_truth
from ...drift.proportion import wilson
from ...drift.sweep import Point, Sweep, with_front
from ...runtimes import load
from ...targets import get_target
from ..export import ExportedBundle, export
from ..export_options import ExportOptions
from ..sources import Live, ModelOptions, from_predictor, open_source
from .judging import read_pixels
from .speed import in_turns
from .tune import RecipeName

_BATCH: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepOptions:
    """What is tried.

    Attributes:
        export: The model, the targets, the images that calibrate and tune; ``out`` takes a folder
            of bundles for each way.
        data: A folder of images that judge.
        images: How many of them at most.
        truth: Their ground truth.
        precisions: Of which each target gets those that it runs; none is all of them.
        recipes: For calibrated precisions.
        max_drops: Budgets for calibrated precisions, beside none.
    """

    export: ExportOptions
    data: Path
    images: int = 1000
    truth: Path | None = None
    precisions: tuple[Precision, ...] = ()
    recipes: tuple[RecipeName, ...] = ("fast",)
    max_drops: tuple[float, ...] = ()


def sweep(options: SweepOptions, progress: Progress) -> Sweep:
    """Export a model in every way, and judge each bundle.

    Raises:
        CheckFailedError: No conversion passed its checks; of several those that did are judged.
        UsageError: A precision runs on none of the targets, or a recipe has no images to tune on.
        DataError: Too few images are left to judge, or nothing says what is right on them.
        EdgeclsError: As ``export``.
    """
    ways = list(_ways(options))
    bundles: list[tuple[str, ExportedBundle, bool]] = []
    for name, asked in ways:
        progress.step(f"export {name}")
        try:
            made = export(asked, progress)
        except CheckFailedError as error:
            progress.note(f"{name} was left out: {error}")
            continue
        missed = {target for found in made.missed for target in found.targets}
        bundles += [(name, one, one.manifest.target not in missed) for one in made.bundles]
    if not bundles:
        raise CheckFailedError("none of the conversions passed its checks; see the notes above")
    return _judged(options, bundles, progress)


def _ways(options: SweepOptions) -> Iterator[tuple[str, ExportOptions]]:
    """Yield each way's name and its export."""
    targets = [get_target(name) for name in options.export.targets]
    wanted = options.precisions or PRECISIONS
    for precision in wanted:
        able = tuple(target.name for target in targets if precision in target.precisions)
        if not able:
            if options.precisions:
                raise UsageError(f"none of the targets runs {precision}")
            continue
        plain = replace(options.export, targets=able, precision=precision)
        if precision not in CALIBRATED:
            bare = replace(plain, tune=None, calib_table=None)
            yield precision, replace(bare, out=options.export.out / precision)
            continue
        budgets: tuple[float | None, ...] = (None, *options.max_drops)
        for recipe, budget in itertools.product(options.recipes, budgets):
            tuned = recipe == "best" or budget is not None
            name = precision + ", best" * (recipe == "best")
            name += f", {budget:g} points" if budget is not None else ""
            yield name, replace(
                plain, recipe=recipe, max_drop=budget,
                tune=options.export.tune if tuned else None,
                out=options.export.out / name.replace(", ", "-").replace(" ", "-"),
            )  # fmt: skip


def _judged(
    options: SweepOptions, bundles: Sequence[tuple[str, ExportedBundle, bool]], progress: Progress
) -> Sweep:
    first = bundles[0][1].manifest
    every = list_images(options.data)
    labels = read_labels(options.export.labels) if options.export.labels else None
    if labels is None and first.labels is not None:
        labels = Labels(names=first.labels, synsets=first.synsets)
    truth = match_truth(every, num_classes=first.num_classes, labels=labels, truth=options.truth)
    if truth is None:
        raise DataError(
            f"{options.data} has no class folders: accuracy needs ground truth; give --truth FILE"
        )
    asked = options.export
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
        from_predictor(load(bundle.path, allow_fallback=True, threads=1))
        for _, bundle, _ in bundles
    ]
    times = in_turns([source.logits for source in sources], kept.pixels[:1])
    points = []
    for (name, bundle, reached), source, taken in zip(bundles, sources, times, strict=True):
        assert source.predictor is not None
        count = int((_answers(source, kept.pixels) == right).sum())
        low, high = wilson(count, len(right))
        artefact = source.predictor.artefact
        points.append(
            Point(
                name=name,
                target=bundle.manifest.target,
                precision=bundle.manifest.precision,
                bundle=str(bundle.path),
                reached=reached,
                top1=100 * count / len(right),
                lower=100 * low,
                upper=100 * high,
                drop=float_top1 - 100 * count / len(right),
                size_bytes=bundle.manifest.files[artefact.path].size_bytes,
                left_float=len(bundle.manifest.tuning.left_float) if bundle.manifest.tuning else 0,
                backend=source.predictor.backend,
                simulated=source.predictor.fell_back is not None,
                latency_ms=None if source.predictor.fell_back is not None else taken,
            )
        )
    ordered = sorted(points, key=lambda point: options.export.targets.index(point.target))
    return Sweep(
        model=first.model.source,
        images=len(right),
        overlap=kept.overlap,
        truth=truth.how,
        float_top1=float_top1,
        points=with_front(ordered),
    )


def _answers(source: Live, pixels: Pixels) -> NDArray[np.intp]:
    """Return the classes that a source answers, shape (N,)."""
    starts = range(0, len(pixels), _BATCH)
    return np.concatenate(
        [source.logits(pixels[start : start + _BATCH]).argmax(1) for start in starts]
    )
