"""What to export, and what of it can be had together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from ..core.errors import CheckFailedError, UsageError
from ..core.progress import Progress
from ..core.ranges import CalibrationMethod
from ..core.values import CALIBRATED, Precision, StepCheck
from ..export.quantized import activation_bits
from ..models import LoadedModel
from ..models.trained import brings_table
from ..targets import TARGETS, Target, get_target
from ..targets.jetpack import JetPack, Module, choose
from .artefacts import Built
from .graph import CheckedGraph
from .precision.tune import RecipeName

# By the bits of a quantized graph's activations: what it is.
_PRECISIONS: Final[dict[int, Precision]] = {0: "int8-weights", 8: "int8", 16: "int16x8"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What to export, as the command line has it.

    Attributes:
        source: The model.
        targets: Names, at least one.
        out: Bundles are written to ``out/TARGET``.
        weights: A checkpoint.
        calib: A folder of images, for int8; for a graph that is quantized already, to quantize
            what it leaves in float.
        calib_images: How many of them.
        calib_table: A table of ``edgecls calibrate``; ``calib`` then only gives golden samples.
        labels: A file of class names.
        preprocess: A preset's name or a TOML file.
        num_classes: Of the model's head.
        precision: Of every bundle; None is int8.
        method: How ranges are chosen.
        seed: Chooses the calibration images.
        allow_random_weights: Whether a model that nobody trained may be exported.
        keep_graphs: A folder for the ONNX graphs between the stages.
        phone: Whether TFLite bundles also carry the file for phones.
        strict_int8: Whether something left in float is an error in files of a calibrated precision.
        jetpack: The JetPack of the device, whose TensorRT the graphs are checked for.
        module: The Jetson module, likewise.
        implicit_int8: Whether int8 for TensorRT also goes as a float graph with a calibration
            cache, which TensorRT 10 quantizes itself.
        recipe: "fast" quantizes as the ranges say; "best" tries each repair on the tuning images
            and keeps what pays.
        max_drop: The budget in points of top-1 on the tuning images: layers are left float until it
            is kept.
        max_float: The largest share of the multiply-accumulates that may be, in percent.
        tune: A folder of images that choose repairs and layers.
        tune_images: How many of them at most.
        tune_truth: Their ground truth.
        tune_resume: A file that keeps what was measured, and from which the search goes on.
    """

    source: str
    targets: tuple[str, ...]
    out: Path
    weights: Path | None = None
    calib: Path | None = None
    calib_images: int = 100
    calib_table: Path | None = None
    labels: Path | None = None
    preprocess: str | None = None
    num_classes: int | None = None
    precision: Precision | None = None
    method: CalibrationMethod = "minmax"
    seed: int = 0
    allow_random_weights: bool = False
    keep_graphs: Path | None = None
    phone: bool = False
    strict_int8: bool = False
    jetpack: str | None = None
    module: str | None = None
    implicit_int8: bool = False
    recipe: RecipeName = "fast"
    max_drop: float | None = None
    max_float: float = 100.0
    tune: Path | None = None
    tune_images: int = 1000
    tune_truth: Path | None = None
    tune_resume: Path | None = None


def check_options(options: ExportOptions) -> tuple[tuple[Target, ...], Precision]:
    """Return the targets and the precision that a float model would have.

    Raises:
        UsageError: Options contradict each other, or a target does not run the precision.
    """
    precision: Precision = options.precision or "int8"
    targets = tuple(get_target(name) for name in dict.fromkeys(options.targets))
    if not targets:
        raise UsageError("no target; give --target at least once")
    check_precision(targets, precision)
    if not (options.source.endswith(".onnx") or brings_table(Path(options.source))):
        require_images(options, targets, precision)
    if options.phone and all(target.ships != "tflite" for target in targets):
        raise UsageError("--phone makes a TFLite file; add --target raspberry-pi")
    check_strict(options, precision)
    _check_implicit(options, targets, precision)
    _check_tuning(options, precision)
    device_of(options, targets)
    if options.calib_images < 1:
        raise UsageError(f"--calib-images must be 1 or more, found {options.calib_images}")
    if options.calib_table is not None and precision not in CALIBRATED:
        raise UsageError(f"--calib-table is for calibrated precisions, not for {precision}")
    return targets, precision


def device_of(
    options: ExportOptions, targets: tuple[Target, ...]
) -> tuple[JetPack, Module | None] | None:
    """Return the JetPack and the module that were asked for.

    Raises:
        UsageError: They are not in the table, do not go together, or no target runs JetPack.
    """
    if options.jetpack is None:
        if options.module is not None:
            raise UsageError(
                "--module needs --jetpack VERSION; edgecls targets --module lists them"
            )
        return None
    if not any(target.jetpack for target in targets):
        runs = ", ".join(target.name for target in TARGETS.values() if target.jetpack)
        raise UsageError(f"--jetpack is for the target {runs}; add --target {runs}")
    return choose(options.jetpack, options.module)


def _check_implicit(
    options: ExportOptions, targets: tuple[Target, ...], precision: Precision
) -> None:
    if not options.implicit_int8:
        return
    if precision != "int8":
        raise UsageError(f"--implicit-int8 is for int8, not for {precision}")
    if not any(target.tensorrt for target in targets):
        runs = [target.name for target in TARGETS.values() if target.tensorrt]
        raise UsageError(f"--implicit-int8 is for TensorRT 10; add --target {' or '.join(runs)}")


def _check_tuning(options: ExportOptions, precision: Precision) -> None:
    wanted = "--max-drop" if options.max_drop is not None else "--recipe best"
    if options.max_drop is None and options.max_float != 100.0:
        raise UsageError("--max-float bounds what --max-drop POINTS leaves float; give both")
    for given, name in ((options.tune_truth, "truth"), (options.tune_resume, "resume")):
        if given is not None and options.tune is None:
            raise UsageError(f"--tune-{name} is for --tune DIR; give that, or leave it out")
    if options.max_drop is None and options.recipe == "fast":
        if options.tune is not None:
            raise UsageError(
                "--tune is for --max-drop POINTS or --recipe best; give one, or leave --tune out"
            )
        return
    if options.tune is None:
        raise UsageError(f"{wanted} needs images that did not calibrate: give --tune DIR")
    if precision not in CALIBRATED:
        names = " and ".join(sorted(CALIBRATED))
        raise UsageError(f"{wanted} is for {names}, not for {precision}")
    if options.recipe == "best" and options.calib is None:
        raise UsageError("--recipe best needs the images that calibrate: give --calib DIR")
    if options.max_drop is not None and not 0 <= options.max_drop < 100:
        raise UsageError(f"--max-drop must be 0 or more points, below 100: {options.max_drop:g}")
    if options.max_drop is not None and options.strict_int8:
        raise UsageError("--max-drop leaves layers float, --strict-int8 none; give one of them")
    if options.implicit_int8:
        raise UsageError(
            f"{wanted} changes what is quantized, --implicit-int8 leaves that to TensorRT; give "
            "one of them"
        )


def check_strict(options: ExportOptions, precision: Precision) -> None:
    """Raise UsageError where ``strict_int8`` is asked of a precision that has no int8."""
    if options.strict_int8 and precision not in CALIBRATED:
        names = " and ".join(sorted(CALIBRATED))
        raise UsageError(f"--strict-int8 is for {names}, not for {precision}")


def check_precision(targets: tuple[Target, ...], precision: Precision) -> None:
    """Raise UsageError where a target does not run the precision."""
    for target in targets:
        if precision not in target.precisions:
            raise UsageError(
                f"{target.name} does not run {precision}; it runs: {', '.join(target.precisions)}"
            )


def own_precision(
    options: ExportOptions, graph: CheckedGraph, targets: tuple[Target, ...]
) -> Precision:
    """Return the precision that a quantized graph came with.

    Raises:
        UsageError: Another one is wanted, or what is for float models alone.
    """
    for given, option, reason in (
        (options.implicit_int8, "--implicit-int8", "whose quantization TensorRT can choose"),
        (options.tune is not None, "--tune", "whose layers can be left float"),
    ):
        if given:
            raise UsageError(
                f"{options.source} is quantized: {option} is for float models, {reason}"
            )
    precision = _PRECISIONS[activation_bits(graph.model)]
    if precision not in CALIBRATED and options.calib is not None:
        precision = "int8"
    if options.precision not in (None, precision):
        hint = "; --calib DIR quantizes its activations" if precision not in CALIBRATED else ""
        raise UsageError(
            f"{options.source} is quantized: it can only be exported as {precision}{hint}"
        )
    check_precision(targets, precision)
    check_strict(options, precision)
    if options.calib_table is not None:
        raise UsageError(
            f"{options.source} is quantized: --calib-table is for float models; give --calib DIR "
            "to quantize what it leaves in float"
        )
    return precision


def require_images(
    options: ExportOptions, targets: tuple[Target, ...], precision: Precision
) -> None:
    """Raise UsageError where a float model would be quantized without images."""
    if precision in CALIBRATED and options.calib is None and options.calib_table is None:
        raise UsageError(
            f"{precision} needs images to calibrate with: give --calib DIR, --calib-table FILE, or "
            "--precision " + " or ".join(p for p in targets[0].precisions if p not in CALIBRATED)
        )


def note_learned(
    loaded: LoadedModel, targets: Sequence[Target], precision: Precision, progress: Progress
) -> None:
    """Say which scales are those that were trained."""
    trained = loaded.quantized
    assert trained is not None
    if precision != "int8":
        progress.note(f"{loaded.source}: its scales were trained for int8, {precision} has others")
        return
    same: list[str] = []
    other: list[str] = []
    for target in targets:
        scheme = msgspec.structs.replace(target.scheme, codes=trained.scheme.codes)
        (same if scheme == trained.scheme else other).append(target.name)
    if same:
        progress.note(f"{loaded.source}: the scales that were trained ship to {', '.join(same)}")
    if other:
        progress.note(
            f"{', '.join(other)}: the ranges that were trained for {trained.target}, under another "
            "scheme that took no part in it; measure it: edgecls drift"
        )


def require_int8(
    made: Sequence[tuple[Target, tuple[Built, ...], tuple[StepCheck, ...]]], *, can_fill: bool
) -> None:
    """Raise CheckFailedError where an int8 file computes something in float."""
    found = {
        f"{target.name}: {', '.join(item.artefact.left_float)}": None
        for target, built, _ in made
        for item in built
        if item.artefact.precision in CALIBRATED and item.artefact.left_float
    }
    if found:
        fix = (
            "give --calib DIR to quantize what the graph leaves in float"
            if can_fill
            else "replace these operators in the model, or leave --strict-int8 out"
        )
        raise CheckFailedError(
            f"--strict-int8: expected every operator in int8, found in float for "
            f"{'; '.join(found)}; {fix}; nothing was written"
        )
