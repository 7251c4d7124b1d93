"""An accuracy budget instead of a precision: what is mended, and what is left float, per target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from ...bundle.manifest import Tuning
from ...calibration.collect import data_hash
from ...calibration.table import CalibrationTable
from ...core.progress import Progress
from ...core.values import CALIBRATED, Precision, QuantScheme
from ...data.images import ImageFile, list_images, select_images
from ...data.labels import Labels
from ...data.truth import match_truth
from ...targets import Target
from ..graph import CheckedGraph
from .judging import Judging, read_judging
from .recipe import Recipe, State, Tried
from .resume import Results, identity
from .search import Candidate, Found, search
from .sensitivity import LayerCost
from .source import Source
from .speed import Latency, fastest, measure

RecipeName = Literal["fast", "best"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneOptions:
    """What may be lost, and on which images.

    Attributes:
        data: A folder of images that calibrated nothing.
        images: How many of them at most.
        truth: Their ground truth.
        max_drop: The budget in points of top-1; None leaves no layer float.
        max_float: The largest share of the network's multiply-accumulates in float, in percent.
        resume: A file that keeps what was measured, and from which an interrupted search goes on.
        recipe: "best" tries each repair, "fast" none.
    """

    data: Path
    images: int = 1000
    truth: Path | None = None
    max_drop: float | None = None
    max_float: float = 100.0
    resume: Path | None = None
    recipe: RecipeName = "fast"


class SchemeTuning(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided for the targets of one scheme; all numbers are estimates.

    Attributes:
        targets: Which have the scheme.
        reached: Whether the budget is kept.
        graded: Whether drops are of right answers; else of answers that did not change.
        plain: Every layer quantized.
        chosen: What is exported.
        layers: What the layers that are left float cost alone, the noisiest first.
        added_bytes: What their weights take more than in int8.
        tried: How many graphs were measured as a whole.
        latency: Medians on this machine; None where the target's file does not run here, or
            nothing is left float.
    """

    targets: tuple[str, ...]
    reached: bool
    graded: bool
    plain: Candidate
    chosen: Candidate
    layers: tuple[LayerCost, ...]
    added_bytes: int
    tried: int
    latency: Latency | None

    def why(self) -> str:
        """Return in a sentence how the budget was missed."""
        lost = "points of top-1 lost" if self.graded else "% of the answers changed"
        return (
            f"{', '.join(self.targets)}: {self.chosen.drop:.2f} {lost} on the tuning "
            f"images with {len(self.chosen.left)} layers left float ({self.chosen.float_macs:.1f} "
            "% of the multiply-accumulates)"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """What export goes on with.

    Attributes:
        source: What is quantized.
        schemes: By scheme.
        judging: The tuning images.
        truth: Where their ground truth comes from; None without any.
        tried: The repairs that were tried.
        max_drop: The budget.
    """

    source: Source
    schemes: dict[QuantScheme, SchemeTuning]
    judging: Judging
    truth: str | None
    tried: tuple[Tried, ...] = ()
    max_drop: float | None = None

    @property
    def repairs(self) -> tuple[str, ...]:
        """The repairs that were kept, in their order."""
        return tuple(one.repair for one in self.tried if one.kept)

    @property
    def left_float(self) -> Mapping[QuantScheme, tuple[str, ...]]:
        """The layers that stay float, by scheme."""
        return {scheme: found.chosen.left for scheme, found in self.schemes.items()}

    def manifest(self, scheme: QuantScheme) -> Tuning:
        """Return what a bundle's manifest says of it."""
        found = self.schemes[scheme]
        return Tuning(
            repairs=self.repairs,
            left_float=found.chosen.left,
            max_drop=self.max_drop,
            drop=found.chosen.drop,
            images=len(self.judging.names),
            data_sha256=data_hash(self.judging.hashes),
            graded=self.judging.graded,
        )


def tune(
    options: TuneOptions,
    graph: CheckedGraph,
    calibration: CalibrationTable,
    targets: Sequence[Target],
    precision: Precision,
    *,
    images: Sequence[ImageFile],
    labels: Labels | None,
    seed: int,
    progress: Progress,
) -> Tuned:
    """Decide what is repaired, and what each target leaves float.

    Args:
        options: The budget and the images.
        graph: The float graph, against which everything is measured.
        calibration: Its table; the images that gave it do not tune.
        targets: Whose schemes.
        precision: A calibrated one.
        images: Those that calibrated, for repairs.
        labels: The model's class names, to match folders with.
        seed: Chooses the images where there are too many.
        progress: Shows how far it is.

    Raises:
        DataError: Fewer than two images are left, the truth does not fit, or the file to go on
            from is of another run.
    """
    every = list_images(options.data)
    truth = match_truth(every, num_classes=graph.num_classes, labels=labels, truth=options.truth)
    progress.note(
        f"tuning: {truth.how}"
        if truth is not None
        else "tuning: no ground truth; an answer that differs from the float model's counts as lost"
    )
    judging = read_judging(
        select_images(every, options.images, seed), graph.model,
        preprocess=calibration.preprocess, size=calibration.size,
        known=frozenset(calibration.images), truth=truth, option="--tune", progress=progress,
    )  # fmt: skip
    source = Source(model=graph.model, table=calibration.ranges(CALIBRATED[precision]))
    # Before the minutes that repairs take: a file of another run is refused.
    results = Results(options.resume, identity(source, judging))
    by_scheme: dict[QuantScheme, list[Target]] = {}
    for target in targets:
        by_scheme.setdefault(target.scheme_for(precision), []).append(target)
    tried: tuple[Tried, ...] = ()
    if options.recipe == "best":
        recipe = Recipe(
            images=images, size=calibration.size, precision=precision, judging=judging, seed=seed,
            schemes={s: tuple(t.name for t in those) for s, those in by_scheme.items()},
            results=results, progress=progress,
        )  # fmt: skip
        source, tried = recipe(State(source=source, calibration=calibration))
    return Tuned(
        source=source,
        schemes=plan_layers(source, judging, options, by_scheme, precision, results, progress),
        judging=judging,
        truth=truth.how if truth else None,
        tried=tried,
        max_drop=options.max_drop,
    )


def plan_layers(
    source: Source,
    judging: Judging,
    options: TuneOptions,
    by_scheme: Mapping[QuantScheme, Sequence[Target]],
    precision: Precision,
    results: Results,
    progress: Progress,
) -> dict[QuantScheme, SchemeTuning]:
    """Return which layers each target's scheme leaves float.

    Where nothing bounds the drop every layer is quantized.
    """
    made = {}
    for scheme, those in by_scheme.items():
        found = search(
            source, scheme, judging, results, progress=progress, max_float=options.max_float,
            max_drop=float("inf") if options.max_drop is None else options.max_drop,
        )  # fmt: skip
        made[scheme] = _decided(source, those, found, judging, precision, progress)
    return made


def _decided(
    source: Source,
    targets: Sequence[Target],
    found: Found,
    judging: Judging,
    precision: Precision,
    progress: Progress,
) -> SchemeTuning:
    chosen, latency = found.best, None
    if found.best.left:
        progress.step("measure latency")
        latency = measure(source, targets[0], precision, found, judging)
        if latency is not None and found.candidates:
            chosen = fastest(found.candidates, latency)
    layers = source.layers()
    # A weight takes a byte in int8, two or four in what the target computes in beside it.
    more = 1 if targets[0].base_precision == "fp16" else 3
    return SchemeTuning(
        targets=tuple(target.name for target in targets),
        reached=bool(found.candidates),
        graded=judging.graded,
        plain=found.plain,
        chosen=chosen,
        layers=tuple(row for row in found.costs if row.name in chosen.left),
        added_bytes=more * sum(layer.weights for layer in layers if layer.name in chosen.left),
        tried=found.tried,
        latency=latency,
    )
