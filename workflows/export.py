"""A trained classifier becomes one bundle per target."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
import onnx

from ..bundle import Draft, check_replaceable, write_bundles
from ..bundle.manifest import CalibrationInfo, GoldenSample, Manifest, ModelInfo
from ..calibration.collect import model_hash
from ..calibration.table import CalibrationTable
from ..calibration.table_file import read_table
from ..core.errors import UsageError
from ..core.files import sha256_bytes, write_atomic
from ..core.preprocess import Preprocess, resolve_preprocess
from ..core.progress import Progress
from ..core.ranges import RangeTable
from ..core.values import CALIBRATED, Precision, StepCheck
from ..core.version import VERSION
from ..data.images import ImageFile, list_images, select_images
from ..export.preflight import Preflight, preflight
from ..models import LoadedModel
from ..runtimes.preprocess import pixels_to_png
from ..targets import Target
from .artefacts import ArtefactBuilder, Built
from .calibrate import calibrate
from .export_options import (
    ExportOptions,
    check_options,
    check_strict,
    device_of,
    note_learned,
    own_precision,
    require_images,
    require_int8,
)
from .graph import checked_graph, labels_of, load_trained, resolve_input, run_onnx
from .phone import phone_form
from .precision.tune import SchemeTuning, Tuned, TuneOptions, tune
from .samples import GOLDEN, Samples, real_samples, synthetic_samples
from .timing import Stages

FAILING: Final = ".failing"
TOOLS: Final = ("torch", "onnx", "onnxscript", "onnxsim", "onnxruntime", "ai-edge-litert",
                "tensorrt-rtx-cu12-bindings", "timm", "torchvision", "numpy", "pillow")  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedBundle:
    """A bundle that was written."""

    path: Path
    manifest: Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """What an export made.

    Attributes:
        bundles: As written.
        seconds: What each stage took.
        preflight: What the check of the first graph for a JetPack found, where one was asked for.
        tuned: What was decided on the tuning images, where there were any.
    """

    bundles: tuple[ExportedBundle, ...]
    seconds: dict[str, float] = field(default_factory=dict)
    preflight: Preflight | None = None
    tuned: Tuned | None = None

    @property
    def missed(self) -> tuple[SchemeTuning, ...]:
        """What misses its budget: those bundles are kept as TARGET.failing."""
        schemes = self.tuned.schemes.values() if self.tuned else ()
        return tuple(found for found in schemes if not found.reached)


def export(options: ExportOptions, progress: Progress) -> ExportResult:
    """Export a model for every target that was asked for.

    Every target's files are made and compared before the first bundle is written; each bundle is
    written whole or not at all.

    Raises:
        EdgeclsError: With the cause's exit code; no bundle was changed.
    """
    targets, precision = check_options(options)
    for target in targets:
        check_replaceable(options.out / target.name)
        check_replaceable(options.out / f"{target.name}{FAILING}")
    given_table = read_table(options.calib_table) if options.calib_table else None
    if given_table is not None:
        given_table.ranges()  # a part of a table is refused before the model is converted
    stages = Stages(progress)
    images = _calibration_images(options, progress)
    given = resolve_preprocess(options.preprocess) if options.preprocess else None
    with stages.stage("load model"):
        loaded = load_trained(options, progress)
        if given_table is None and loaded.table is not None and precision in CALIBRATED:
            given_table = read_table(loaded.table)
            note_learned(loaded, targets, precision, progress)
        preprocess, size = resolve_input(loaded, given)
        labels = labels_of(loaded, options.labels)
        samples = real_samples(images, preprocess, size) if images else None
        if samples is None:
            if images:
                progress.note(
                    f"fewer than {GOLDEN} of the calibration images can be read: the steps are "
                    "compared on synthetic images, which are the golden samples too"
                )
            elif given_table is not None:
                progress.note(
                    "without --calib the golden samples are synthetic; give it for real ones"
                )
            samples = synthetic_samples(preprocess, size, options.seed)
    tensors = preprocess.normalize(samples.pixels)
    graph = checked_graph(loaded, preprocess=preprocess, size=size, tensors=tensors, stages=stages)
    device = device_of(options, targets)
    if device is not None and not graph.quantized:
        preflight(graph.model, *device)  # before the minutes of calibration
    if labels is not None:
        labels.check(graph.num_classes)
    table: RangeTable | None = None
    calibration: CalibrationTable | None = None
    if graph.quantized:
        if options.implicit_int8:
            raise UsageError(
                f"{options.source} is quantized: --implicit-int8 is for float models, whose "
                "quantization TensorRT can choose"
            )
        if options.tune is not None:
            raise UsageError(
                f"{options.source} is quantized: --tune is for float models, whose layers can be "
                "left float"
            )
        precision = own_precision(options, graph, targets)
        check_strict(options, precision)
        if given_table is not None:
            raise UsageError(
                f"{options.source} is quantized: --calib-table is for float models; give --calib "
                "DIR to quantize what it leaves in float"
            )
        progress.note(
            f"{options.source} has Q/DQ of its own: its scales are kept, "
            + ("the points that it lacks are added" if images else "what it leaves float stays so")
        )
    elif given_table is None:
        require_images(options, targets, precision)
    if precision in CALIBRATED and (images or given_table is not None):
        with stages.stage("calibrate"):
            calibration = given_table or calibrate(
                graph.model,
                images,
                preprocess=preprocess,
                size=size,
                method=options.method,
                seed=options.seed,
                progress=progress,
            )
            calibration.check(
                model_sha256=model_hash(graph.model), preprocess=preprocess, size=size
            )
            table = calibration.ranges(CALIBRATED[precision])
            if table.method != calibration.method:
                progress.note(
                    f"{calibration.method} chooses for 8 bits: 16-bit activations keep all that "
                    "was seen (minmax)"
                )
    tuned: Tuned | None = None
    if options.tune is not None:
        assert calibration is not None
        with stages.stage("tune"):
            tuned = tune(
                TuneOptions(
                    data=options.tune,
                    images=options.tune_images,
                    truth=options.tune_truth,
                    max_drop=options.max_drop,
                    max_float=options.max_float,
                    resume=options.tune_resume,
                    recipe=options.recipe,
                ),
                graph,
                calibration,
                targets,
                precision,
                images=images,
                labels=labels,
                seed=options.seed,
                progress=progress,
            )
        table = tuned.source.table
    builder = ArtefactBuilder(
        graph=graph,
        table=table,
        source=tuned.source if tuned else None,
        left_float=tuned.left_float if tuned else {},
        preprocess=preprocess,
        samples=samples,
        reference=run_onnx(graph.model, tensors),
        stages=stages,
        progress=progress,
        implicit_int8=options.implicit_int8,
    )
    made = [(target, *builder.build(target, precision)) for target in targets]
    if options.strict_int8:
        require_int8(made, can_fill=graph.quantized and not images)
    if options.phone:
        names = labels.names if labels else None
        name = _source_name(loaded)
        made = [_with_phone(*item, preprocess, names, samples, name) for item in made]
    if options.keep_graphs is not None:
        _keep(options.keep_graphs, {"float": graph.model, **builder.graphs})
    checked = [
        preflight(onnx.load_from_string(item.data), *device)
        for target, built, _ in made
        if target.jetpack and device is not None
        for item in built
        if item.artefact.format == "onnx"
    ]
    common = Manifest(
        target="",
        precision=precision,
        model=_model_info(loaded, graph.model),
        preprocess=preprocess,
        labels=labels.names if labels else None,
        synsets=labels.synsets if labels else None,
        num_classes=graph.num_classes,
        artefacts=(),
        steps=graph.steps,
        golden=(),
        golden_source=samples.source,
        tools=_tools(),
        files={},
        calibration=_calibration_info(table) if table is not None else None,
        fingerprint=calibration.fingerprint if calibration is not None else None,
    )
    drafts = [
        Draft(
            path=options.out / _folder(target, precision, tuned),
            manifest=_for_target(common, target, built, steps, samples, tuned),
            files=_files(built, samples),
        )
        for target, built, steps in made
    ]
    with stages.stage("write"):
        written = write_bundles(drafts)
    return ExportResult(
        bundles=tuple(
            ExportedBundle(path=draft.path, manifest=manifest)
            for draft, manifest in zip(drafts, written, strict=True)
        ),
        seconds=stages.seconds,
        preflight=next(iter(checked), None),
        tuned=tuned,
    )


def _folder(target: Target, precision: Precision, tuned: Tuned | None) -> str:
    """Return a bundle's folder: what missed its goal never stands under the good name."""
    kept = tuned is None or tuned.schemes[target.scheme_for(precision)].reached
    return target.name if kept else f"{target.name}{FAILING}"


def _calibration_images(options: ExportOptions, progress: Progress) -> tuple[ImageFile, ...]:
    if options.calib is None:
        return ()
    found = list_images(options.calib)
    if len(found) < options.calib_images:
        progress.note(
            f"{options.calib} has {len(found)} images, not {options.calib_images}: all are used"
        )
    return select_images(found, options.calib_images, options.seed)


def _with_phone(
    target: Target,
    built: tuple[Built, ...],
    steps: tuple[StepCheck, ...],
    preprocess: Preprocess,
    labels: tuple[str, ...] | None,
    samples: Samples,
    name: str,
) -> tuple[Target, tuple[Built, ...], tuple[StepCheck, ...]]:
    if target.ships != "tflite":
        return target, built, steps
    made, check = phone_form(
        built[0],
        preprocess=preprocess,
        labels=labels,
        name=name,
        pixels=samples.pixels,
        limit=target.tolerances[built[0].artefact.precision].logits,
    )
    return target, (*built, made), (*steps, check)


def _source_name(loaded: LoadedModel) -> str:
    """Return what the model was called, without the folders of this machine."""
    source = Path(loaded.source)
    return source.name if source.exists() else loaded.source


def _model_info(loaded: LoadedModel, graph: onnx.ModelProto) -> ModelInfo:
    return ModelInfo(
        source=_source_name(loaded),
        weights_sha256=loaded.weights_sha256,
        parameters=loaded.parameters,
        graph_sha256=sha256_bytes(graph.SerializeToString(deterministic=True)),
    )


def _calibration_info(table: RangeTable) -> CalibrationInfo:
    return CalibrationInfo(
        method=table.method,
        images=table.images,
        seed=table.seed,
        data_sha256=table.data_sha256,
        table_sha256=table.sha256(),
        percentile=table.percentile,
        learned=table.learned,
    )


def _for_target(
    common: Manifest,
    target: Target,
    built: Sequence[Built],
    steps: tuple[StepCheck, ...],
    samples: Samples,
    tuned: Tuned | None,
) -> Manifest:
    scheme = target.scheme_for(common.precision)
    return msgspec.structs.replace(
        common,
        target=target.name,
        tuning=tuned.manifest(scheme) if tuned else None,
        artefacts=tuple(item.artefact for item in built),
        steps=(*common.steps, *steps),
        golden=tuple(
            GoldenSample(
                image=f"golden/{index}{suffix}",
                pixels=f"golden/{index}.pixels.png",
                logits={item.artefact.path: _logits_name(index, item) for item in built},
                steps=samples.steps[index],
                tensors={item.artefact.path: item.tensors[index] for item in built if item.tensors},
            )
            for index, suffix in enumerate(samples.suffixes)
        ),
    )


def _files(built: Sequence[Built], samples: Samples) -> dict[str, bytes]:
    files = {item.artefact.path: item.data for item in built}
    files |= {path: data for item in built for path, data in item.beside.items()}
    for index, (data, suffix) in enumerate(zip(samples.files, samples.suffixes, strict=True)):
        files[f"golden/{index}{suffix}"] = data
        files[f"golden/{index}.pixels.png"] = pixels_to_png(samples.pixels[index])
        for item in built:
            files[_logits_name(index, item)] = item.logits[index].astype("<f4").tobytes()
    return files


def _logits_name(index: int, item: Built) -> str:
    return f"golden/{index}.{item.artefact.precision}.f32"


def _tools() -> dict[str, str]:
    installed = {
        distribution.name.lower().replace("_", "-"): distribution.version
        for distribution in importlib.metadata.distributions()
    }
    return {"edgecls": VERSION} | {name: installed[name] for name in TOOLS if name in installed}


def _keep(folder: Path, graphs: dict[str, onnx.ModelProto]) -> None:
    for name, graph in graphs.items():
        write_atomic(folder / f"{name}.onnx", graph.SerializeToString(deterministic=True))
