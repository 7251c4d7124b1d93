"""A trained classifier becomes one bundle per target."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

import msgspec
import onnx

from ..bundle import Draft, check_replaceable, write_bundles
from ..bundle.manifest import CalibrationInfo, GoldenSample, Manifest, ModelInfo
from ..calibration.collect import model_hash
from ..calibration.table import CalibrationTable
from ..core.files import sha256_bytes, write_atomic
from ..core.progress import Progress
from ..core.ranges import RangeTable
from ..core.values import CALIBRATED, Precision, StepCheck
from ..core.version import VERSION
from ..export.preflight import Preflight, preflight
from ..models import LoadedModel
from ..runtimes.preprocess import pixels_to_png
from ..targets import Target
from .artefacts import ArtefactBuilder, Built
from .calibrate import calibrate
from .export_options import (
    ExportOptions,
    check_options,
    require_int8,
)
from .export_setup import ExportReady, prepare_export
from .graph import run_onnx
from .phone import phone_form
from .precision.tune import SchemeTuning, Tuned, TuneOptions, tune
from .samples import Samples
from .timing import Stages

Made: TypeAlias = tuple[Target, tuple[Built, ...], tuple[StepCheck, ...]]

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
    stages = Stages(progress)
    ready = prepare_export(options, targets, precision, stages, progress)
    calibration, table = _calibrated(ready, stages, progress)
    tuned = _tuned(ready, calibration, stages, progress)
    if tuned is not None:
        table = tuned.source.table
    made, builder = _made(ready, table, tuned, stages, progress)
    if options.keep_graphs is not None:
        _keep(options.keep_graphs, {"float": ready.graph.model, **builder.graphs})
    checked = [
        preflight(onnx.load_from_string(item.data), *ready.device)
        for target, built, _ in made
        if target.jetpack and ready.device is not None
        for item in built
        if item.artefact.format == "onnx"
    ]
    common = _common(ready, table, calibration)
    drafts = [
        Draft(
            path=options.out / _folder(target, ready.precision, tuned),
            manifest=_for_target(common, target, built, steps, ready.samples, tuned),
            files=_files(built, ready.samples),
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


def _calibrated(
    ready: ExportReady, stages: Stages, progress: Progress
) -> tuple[CalibrationTable, RangeTable] | tuple[None, None]:
    """Return what was seen, and the ranges of it; None where the precision needs none.

    Raises:
        CalibrationError: Those that were given are of something else.
        DataError: The images cannot be used.
    """
    options, precision = ready.options, ready.precision
    if precision not in CALIBRATED or not (ready.images or ready.table is not None):
        return None, None
    with stages.stage("calibrate"):
        found = ready.table or calibrate(
            ready.graph.model, ready.images, preprocess=ready.preprocess, size=ready.size,
            method=options.method, seed=options.seed, progress=progress,
        )  # fmt: skip
        found.check(
            model_sha256=model_hash(ready.graph.model), preprocess=ready.preprocess,
            size=ready.size,
        )  # fmt: skip
        table = found.ranges(CALIBRATED[precision])
        if table.method != found.method:
            progress.note(
                f"{found.method} chooses for 8 bits: 16-bit activations keep all that was seen "
                "(minmax)"
            )
    return found, table


def _tuned(
    ready: ExportReady, calibration: CalibrationTable | None, stages: Stages, progress: Progress
) -> Tuned | None:
    """Return what the tuning images decided; None where there are none."""
    options = ready.options
    if options.tune is None:
        return None
    assert calibration is not None
    with stages.stage("tune"):
        return tune(
            TuneOptions(
                data=options.tune, images=options.tune_images, truth=options.tune_truth,
                max_drop=options.max_drop, max_float=options.max_float,
                resume=options.tune_resume, recipe=options.recipe,
            ),
            ready.graph, calibration, ready.targets, ready.precision, images=ready.images,
            labels=ready.labels, seed=options.seed, progress=progress,
        )  # fmt: skip


def _made(
    ready: ExportReady, table: RangeTable | None, tuned: Tuned | None, stages: Stages,
    progress: Progress,
) -> tuple[list[Made], ArtefactBuilder]:  # fmt: skip
    """Return every target's files, and what made them."""
    options = ready.options
    tensors = ready.preprocess.normalize(ready.samples.pixels)
    builder = ArtefactBuilder(
        graph=ready.graph,
        table=table,
        source=tuned.source if tuned else None,
        left_float=tuned.left_float if tuned else {},
        preprocess=ready.preprocess,
        samples=ready.samples,
        reference=run_onnx(ready.graph.model, tensors),
        stages=stages,
        progress=progress,
        implicit_int8=options.implicit_int8,
    )
    made: list[Made] = [
        (target, *builder.build(target, ready.precision)) for target in ready.targets
    ]
    if options.strict_int8:
        require_int8(made, can_fill=ready.graph.quantized and not ready.images)
    if options.phone:
        made = [_with_phone(item, ready) for item in made]
    return made, builder


def _common(
    ready: ExportReady, table: RangeTable | None, calibration: CalibrationTable | None
) -> Manifest:
    """Return what all targets' manifests say."""
    labels = ready.labels
    return Manifest(
        target="",
        precision=ready.precision,
        model=_model_info(ready.loaded, ready.graph.model),
        preprocess=ready.preprocess,
        labels=labels.names if labels else None,
        synsets=labels.synsets if labels else None,
        num_classes=ready.graph.num_classes,
        artefacts=(),
        steps=ready.graph.steps,
        golden=(),
        golden_source=ready.samples.source,
        tools=_tools(),
        files={},
        calibration=_calibration_info(table) if table is not None else None,
        fingerprint=calibration.fingerprint if calibration is not None else None,
    )


def _folder(target: Target, precision: Precision, tuned: Tuned | None) -> str:
    """Return a bundle's folder: what missed its goal never stands under the good name."""
    kept = tuned is None or tuned.schemes[target.scheme_for(precision)].reached
    return target.name if kept else f"{target.name}{FAILING}"


def _with_phone(item: Made, ready: ExportReady) -> Made:
    target, built, steps = item
    if target.ships != "tflite":
        return item
    made, check = phone_form(
        built[0],
        preprocess=ready.preprocess,
        labels=ready.labels.names if ready.labels else None,
        name=_source_name(ready.loaded),
        pixels=ready.samples.pixels,
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
