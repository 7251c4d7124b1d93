"""What each layer's quantization costs alone: only its Q/DQ are on, all else is float."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import msgspec
import onnx

from ...core.progress import Progress
from ...core.values import CALIBRATED, Precision, QuantScheme
from ...data.images import list_images, select_images
from ...data.labels import read_labels
from ...data.truth import match_truth
from ...drift.candidates import values_of
from ..calibrate import CalibrateOptions, calibrate, calibration_images, float_model
from ..calibration_compare import schemes_of
from .judging import Judging, read_judging
from .resume import Results, identity, key_of
from .source import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class SensitivityOptions:
    """What is measured, as the command line has it.

    Attributes:
        calibrate: The model, and the images that calibrate it.
        data: A folder of images that judge.
        images: How many of them at most.
        targets: Whose schemes, each measured once; none is all that take the precision.
        precision: A calibrated one.
        labels: A file of class names, to match folders with.
        truth: Ground truth of the judging images.
        resume: A file that keeps each layer's result, and from which an interrupted run goes on.
    """

    calibrate: CalibrateOptions
    data: Path
    images: int = 500
    targets: tuple[str, ...] = ()
    precision: Precision = "int8"
    labels: Path | None = None
    truth: Path | None = None
    resume: Path | None = None


class Cost(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far a quantized graph is from the float one on the judging images.

    Attributes:
        sqnr_db: Signal to quantization noise of the logits; None where there is no noise.
        kl: The mean KL divergence from the float graph's probabilities, in nats.
        agreement: Images with the same answer, in percent.
        top1: Right answers, in percent; None without ground truth.
    """

    sqnr_db: float | None
    kl: float
    agreement: float
    top1: float | None


class LayerCost(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What it costs to quantize one layer and no other.

    Attributes:
        name: Of its convolution or matrix product.
        operator: Of that node.
        macs: Multiply-accumulates of one image.
        weights: How many numbers its weights have.
        cost: On the judging images.
    """

    name: str
    operator: str
    macs: int
    weights: int
    cost: Cost


class SchemeSensitivity(msgspec.Struct, frozen=True, kw_only=True):
    """Every layer under one scheme.

    Attributes:
        targets: Which have it.
        scheme: How they quantize.
        all: What quantizing every layer costs.
        layers: Those that the scheme quantizes, the costliest first.
    """

    targets: tuple[str, ...]
    scheme: QuantScheme
    all: Cost
    layers: tuple[LayerCost, ...]


class Sensitivity(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured.

    Attributes:
        calibrated_on: How many images.
        judged_on: How many others.
        overlap: Judging images that were left out, as they had calibrated.
        unreadable: Judging images that could not be read.
        truth: Where the ground truth comes from; None without any.
        float_top1: Of the float model, in percent.
        schemes: One result for each.
    """

    calibrated_on: int
    judged_on: int
    overlap: int
    unreadable: int
    truth: str | None
    float_top1: float | None
    schemes: tuple[SchemeSensitivity, ...]


def sensitivity(options: SensitivityOptions, progress: Progress) -> Sensitivity:
    """Calibrate a model, and quantize one layer after the other.

    Raises:
        UsageError: A target does not take the precision.
        DataError: Too few images are left to judge, the truth does not fit, or the file to go on
            from is of another run.
        EdgeclsError: The model or the images cannot be used.
    """
    by_scheme = schemes_of(options.targets, options.precision)
    every = list_images(options.data)
    labels = read_labels(options.labels) if options.labels else None
    chosen = calibration_images(options.calibrate, progress)
    model = float_model(options.calibrate, chosen, progress)
    truth = match_truth(every, num_classes=model.num_classes, labels=labels, truth=options.truth)
    if truth is not None:
        progress.note(truth.how)
    table = calibrate(
        model.graph, chosen, preprocess=model.preprocess, size=model.size,
        method=options.calibrate.method, percentile=options.calibrate.percentile,
        seed=options.calibrate.seed, progress=progress,
    )  # fmt: skip
    judging = read_judging(
        select_images(every, options.images, options.calibrate.seed), model.graph,
        preprocess=model.preprocess, size=model.size, known=frozenset(table.images), truth=truth,
        option="--data", progress=progress,
    )  # fmt: skip
    ranges = table.ranges(CALIBRATED[options.precision])
    source = Source(model=model.graph, table=ranges)
    results = Results(options.resume, identity(source, judging))
    schemes = [
        measure_scheme(source, scheme, judging, results, progress, targets)
        for scheme, targets in by_scheme.items()
    ]
    return Sensitivity(
        calibrated_on=len(table.images),
        judged_on=len(judging.names),
        overlap=judging.overlap,
        unreadable=judging.unreadable,
        truth=truth.how if truth else None,
        float_top1=100 * judging.float_right / len(judging.names) if judging.graded else None,
        schemes=tuple(schemes),
    )


def measure_scheme(
    source: Source,
    scheme: QuantScheme,
    judging: Judging,
    results: Results,
    progress: Progress,
    targets: tuple[str, ...] = (),
) -> SchemeSensitivity:
    """Return what each layer costs alone under a scheme, and all of them together.

    Args:
        source: What is quantized.
        scheme: How.
        judging: The images.
        results: Takes each result as it is there, and gives those that it has.
        progress: Shows how many are done.
        targets: Which have the scheme.
    """
    layers = source.layers()
    names = [layer.name for layer in layers]
    prefix = key_of(source, scheme)

    def measured(key: str, float_nodes: Collection[str]) -> Cost:
        found = results.get(f"{prefix}/{key}", Cost)
        if found is None:
            found = cost_of(judging, source.quantize(scheme, float_nodes).model)
            results.put(f"{prefix}/{key}", found)
        return found

    skipped = set(source.quantize(scheme).left_float)
    rows = []
    for layer in progress.track(layers, "quantizing one layer at a time", len(layers)):
        if layer.name in skipped:
            continue
        others = [name for name in names if name != layer.name]
        cost = measured(f"layer/{layer.name}", others)
        rows.append(
            LayerCost(
                name=layer.name,
                operator=layer.operator,
                macs=layer.macs,
                weights=layer.weights,
                cost=cost,
            )
        )
    return SchemeSensitivity(
        targets=targets,
        scheme=scheme,
        all=measured("all", ()),
        layers=tuple(sorted(rows, key=costliest_first)),
    )


def cost_of(judging: Judging, model: onnx.ModelProto) -> Cost:
    """Return how far a graph is from the float one on the judging images."""
    values = values_of(judging.record(judging.answer(model)))
    sqnr = values["sqnr_db"].value
    return Cost(
        sqnr_db=None if sqnr == float("inf") else sqnr,
        kl=values["kl"].value,
        agreement=values["agreement"].value,
        top1=values["top1"].value if "top1" in values else None,
    )


def costliest_first(row: LayerCost) -> float:
    """Sort layers by the noise that they add to the logits, the noisiest first."""
    return float("inf") if row.cost.sqnr_db is None else row.cost.sqnr_db
