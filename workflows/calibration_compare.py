"""Calibration methods on one model, judged on images that none of them has seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from ..calibration.collect import Observations, choose_ranges, observe
from ..calibration.observers import method_for
from ..calibration.placement import QuantizedGraph, place_qdq
from ..core.errors import UsageError
from ..core.progress import Progress
from ..core.ranges import METHODS, CalibrationMethod
from ..core.values import CALIBRATED, Precision, QuantScheme
from ..data.images import list_images
from ..data.labels import read_labels
from ..data.truth import match_truth
from ..drift.candidates import ALPHA, Measure, Measured, join, measure_all
from ..export.passes import for_one_image
from ..targets import TARGETS, get_target
from .calibrate import CalibrateOptions, FloatModel, calibration_images, float_model, image_tensors
from .calibration_judge import Judge
from .sketch import Sketch

BASELINE: Final[CalibrationMethod] = "minmax"


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareOptions:
    """What is compared, as the command line has it.

    Attributes:
        calibrate: The model and the images that calibrate it; its method is not read.
        against: A folder of images that judge.
        methods: Compared with min-max, which always takes part.
        targets: Whose schemes, each judged once; none is all that take the precision.
        precision: A calibrated one.
        labels: A file of class names, to match folders with.
        truth: Ground truth of the judging images.
    """

    calibrate: CalibrateOptions
    against: Path
    methods: tuple[CalibrationMethod, ...] = METHODS
    targets: tuple[str, ...] = ()
    precision: Precision = "int8"
    labels: Path | None = None
    truth: Path | None = None


class MethodResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one method gave under one scheme."""

    method: CalibrationMethod
    measures: dict[Measure, Measured]


class SchemeResult(msgspec.Struct, frozen=True, kw_only=True):
    """Every method under one scheme.

    Attributes:
        targets: Which have it.
        scheme: How they quantize.
        quantized: How many convolutions and matrix products are.
        left_float: Names of those that are not.
        methods: Min-max first.
    """

    targets: tuple[str, ...]
    scheme: QuantScheme
    quantized: int
    left_float: tuple[str, ...]
    methods: tuple[MethodResult, ...]


class CalibrationComparison(msgspec.Struct, frozen=True, kw_only=True):
    """What a comparison found.

    Attributes:
        calibrated_on: How many images were observed, once for all methods.
        judged_on: How many other images judged.
        overlap: Images of the judging folder that were left out, as they had calibrated.
        unreadable: Images of the judging folder that could not be read.
        truth: Where the ground truth comes from; None without any.
        float_top1: Of the float model on the judging images, in percent.
        float_top5: Likewise.
        confidence: Of all intervals of one measure and scheme together, 0..1.
        percentile: What the percentile method keeps, in percent; None where it took no part.
        schemes: One result for each.
    """

    calibrated_on: int
    judged_on: int
    overlap: int
    unreadable: int
    truth: str | None
    float_top1: float | None
    float_top5: float | None
    confidence: float
    percentile: float | None
    schemes: tuple[SchemeResult, ...]


def compare_methods(options: CompareOptions, progress: Progress) -> CalibrationComparison:
    """Observe a model once, quantize it by every method and scheme, and judge each simulation.

    Raises:
        UsageError: A target does not take the precision.
        DataError: Fewer than two images are left to judge, or the truth does not fit.
        EdgeclsError: The model or the images cannot be used.
    """
    by_scheme = schemes_of(options.targets, options.precision)
    methods = tuple(dict.fromkeys((BASELINE, *options.methods)))
    judging = list_images(options.against)
    labels = read_labels(options.labels) if options.labels else None
    chosen = calibration_images(options.calibrate, progress)
    model = float_model(options.calibrate, chosen, progress)
    truth = match_truth(judging, num_classes=model.num_classes, labels=labels, truth=options.truth)
    if truth is not None:
        progress.note(truth.how)
    sketch = Sketch(model.preprocess.channels)
    seen = observe(
        model.graph, image_tensors(chosen, model.preprocess, model.size, progress, sketch)
    )
    graphs = {
        (scheme, method): _quantized(model, seen, scheme, method, options.calibrate)
        for scheme in by_scheme
        for method in methods
    }
    judge = Judge(model, graphs, truth)
    judge.run(judging, frozenset(seen.images), progress)
    schemes = []
    for scheme, targets in by_scheme.items():
        by_method = {method: join(judge.records[scheme, method]) for method in methods}
        found = measure_all(by_method, BASELINE, seed=options.calibrate.seed)
        first = graphs[scheme, BASELINE]
        schemes.append(
            SchemeResult(
                targets=targets,
                scheme=scheme,
                quantized=first.quantized,
                left_float=first.left_float,
                methods=tuple(MethodResult(method=m, measures=found[m]) for m in methods),
            )
        )
    expected = join(judge.float_records).shares
    return CalibrationComparison(
        calibrated_on=len(seen.images),
        judged_on=judge.images,
        overlap=judge.overlap,
        unreadable=judge.unreadable,
        truth=truth.how if truth else None,
        float_top1=100 * float(expected["top1"].mean()) if truth else None,
        float_top5=100 * float(expected["top5"].mean()) if truth else None,
        confidence=1 - ALPHA,
        percentile=options.calibrate.percentile if "percentile" in methods else None,
        schemes=tuple(schemes),
    )


def schemes_of(names: Sequence[str], precision: Precision) -> dict[QuantScheme, tuple[str, ...]]:
    """Return the targets of each scheme.

    Args:
        names: Of targets; none is all that take the precision.
        precision: A calibrated one.

    Raises:
        UsageError: It is none, or a target does not take it.
    """
    if precision not in CALIBRATED:
        raise UsageError(f"{precision} is not calibrated; take {' or '.join(sorted(CALIBRATED))}")
    found: dict[QuantScheme, tuple[str, ...]] = {}
    able = [name for name, target in TARGETS.items() if precision in target.precisions]
    for name in dict.fromkeys(names or able):
        target = get_target(name)
        if precision not in target.precisions:
            raise UsageError(
                f"{name} does not run {precision}; it runs: {', '.join(target.precisions)}"
            )
        scheme = target.scheme_for(precision)
        found[scheme] = (*found.get(scheme, ()), name)
    return found


def _quantized(
    model: FloatModel,
    seen: Observations,
    scheme: QuantScheme,
    method: CalibrationMethod,
    options: CalibrateOptions,
) -> QuantizedGraph:
    chosen = method_for(method, scheme.activation_bits)
    table = choose_ranges(seen, method=chosen, seed=options.seed, percentile=options.percentile)
    graph = for_one_image(model.graph) if scheme.placement == "full" else model.graph
    return place_qdq(graph, table, scheme)
