"""What the reference model gives today, form by form, up to the file that would ship."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import onnx

from ...bundle.manifest import CalibrationInfo
from ...calibration.collect import model_hash
from ...calibration.placement import layers_of
from ...calibration.table import CalibrationTable
from ...core.errors import CalibrationError
from ...core.preprocess import Preprocess
from ...core.progress import Progress
from ...core.ranges import DEFAULT_PERCENTILE
from ...core.values import CALIBRATED, ArtefactFormat, Logits, Pixels, Precision
from ...data.images import ImageFile, select_images
from ...drift.explanation import Stage
from ...export.torch_onnx import TorchToOnnx
from ...models import LoadedModel
from ...runtimes.backend import Backend, Options
from ...runtimes.backends import open_backend
from ...targets import Target
from ...targets.target import BackendName
from ..artefacts import ArtefactBuilder, Built
from ..calibrate import calibrate
from ..graph import CheckedGraph, OnnxRunner, checked_graph, run_onnx, run_torch
from ..samples import real_samples, synthetic_samples
from ..timing import Stages
from ..weight_forms import WEIGHT_FORMS
from .chain import Run

HERE: Final[dict[ArtefactFormat, BackendName]] = {"tflite": "litert", "onnx": "onnxruntime"}
"""What runs a file on any machine."""

# As many as an export takes by default.
_IMAGES: Final = 100
_SEED: Final = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A form of the model, one stage further than the one before."""

    stage: Stage
    expected: str
    found: str
    run: Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the reference model becomes today.

    Attributes:
        first: The model as the user named it.
        forms: Each stage after it.
        same: The stages that change nothing here.
        graph: The float graph, or the one that came quantized.
        source: What the file is made from: the graph with Q/DQ or with smaller weights.
        built: The file.
        exact: Whether its ranges are the table that the user gave, not measured for the occasion.
    """

    first: Run
    forms: tuple[Form, ...]
    same: tuple[Stage, ...]
    graph: CheckedGraph
    source: onnx.ModelProto
    built: Built
    exact: bool


class FileRun:
    """Runs a file with a backend, once for each normalisation that it meets."""

    def __init__(
        self, backend: BackendName, data: bytes, precision: Precision, *, engine: bool = False
    ) -> None:
        self._backend = backend
        self._data = data
        self._options = Options(precision=precision, built=engine)
        self._open: dict[Preprocess, Backend] = {}

    def __call__(self, pixels: Pixels, preprocess: Preprocess) -> Logits:
        """Return logits (N, classes) for pixels (N, H, W, C)."""
        if preprocess not in self._open:
            self._open[preprocess] = open_backend(
                self._backend, self._data, preprocess, self._options
            )
        return self._open[preprocess].logits(pixels)


def model_run(loaded: LoadedModel) -> Run:
    """Return what runs a loaded model as it is."""
    if loaded.onnx is None:
        return lambda pixels, preprocess: run_torch(loaded, preprocess.normalize(pixels))
    return graph_run(onnx.ModelProto.FromString(loaded.onnx))


def graph_run(model: onnx.ModelProto) -> Run:
    """Return what runs a graph on ONNX Runtime; one with Q/DQ as it is written."""
    runner = OnnxRunner(model)
    return lambda pixels, preprocess: runner(preprocess.normalize(pixels))


def make_plan(
    loaded: LoadedModel,
    *,
    target: Target,
    precision: Precision,
    preprocess: Preprocess,
    size: tuple[int, int],
    images: Sequence[ImageFile],
    calibration: CalibrationInfo | None,
    table: CalibrationTable | None,
    left_float: tuple[str, ...],
    progress: Progress,
) -> Plan:
    """Convert the reference model for the candidate's target.

    Args:
        loaded: The model.
        target: The candidate's.
        precision: Likewise.
        preprocess: The reference's: a plan is what the model needs, whatever the candidate does.
        size: (height, width) in px.
        images: Some of them are calibrated on, where there is no table.
        calibration: How the candidate says that it was calibrated.
        table: Ranges to take instead.
        left_float: The layers that the candidate leaves float.
        progress: Shows how far it is.

    Raises:
        CalibrationError: The table is of another graph.
        EdgeclsError: The model cannot be converted.
    """
    stages = Stages(progress)
    samples = real_samples(images, preprocess, size) or synthetic_samples(preprocess, size, _SEED)
    tensors = preprocess.normalize(samples.pixels)
    forms, same = list[Form](), list[Stage]()
    first = model_run(loaded)
    if loaded.onnx is None:
        assert loaded.module is not None
        with stages.stage("torch -> ONNX"):
            convert = TorchToOnnx(
                input_size=(preprocess.channels, *size), fixed_batch=loaded.fixed_batch
            )
            exported = convert(loaded.module)
        forms.append(_form("torch to ONNX", "torch", "ONNX on ONNX Runtime", graph_run(exported)))
        loaded = replace(loaded, module=None, onnx=exported.SerializeToString())
    graph = checked_graph(loaded, preprocess=preprocess, size=size, tensors=tensors, stages=stages)
    simplified = graph_run(graph.model)
    forms.append(_form("simplification", "the graph as it came", "simplified, folded", simplified))
    ranges, given = None, table is not None
    if precision in CALIBRATED and not graph.quantized:
        table = table or calibrate(
            graph.model,
            select_images(images, _IMAGES, _SEED),
            preprocess=preprocess,
            size=size,
            method=calibration.method if calibration else "minmax",
            percentile=(calibration and calibration.percentile) or DEFAULT_PERCENTILE,
            seed=_SEED,
            progress=progress,
        )
        _check(table, graph.model)
        ranges = table.ranges(CALIBRATED[precision])
    # Of another graph, a layer of that name may not be there.
    present = {layer.name for layer in layers_of(graph.model)} if left_float else set()
    left = tuple(name for name in left_float if name in present)
    builder = ArtefactBuilder(
        graph=graph,
        table=ranges,
        left_float={target.scheme_for(precision): left},
        preprocess=preprocess,
        samples=samples,
        reference=run_onnx(graph.model, tensors),
        stages=stages,
        progress=progress,
    )
    built = builder.primary(target, precision)
    source, made = _source(builder, target, precision)
    if made is not None:
        forms.append(_form("quantization", "float32", made, graph_run(source)))
    else:
        same.append("quantization")
    backend = HERE[built.artefact.format]
    run = FileRun(backend, built.data, precision)
    forms.append(
        _form("lowering", "the graph", f"{built.artefact.format} {precision} on {backend}", run)
    )
    return Plan(
        first=first,
        forms=tuple(forms),
        same=tuple(same),
        graph=graph,
        source=source,
        built=built,
        exact=given,
    )


def _source(
    builder: ArtefactBuilder, target: Target, precision: Precision
) -> tuple[onnx.ModelProto, str | None]:
    """Return what the file is made from, and what quantization did; None where it did nothing."""
    graph = builder.graph.model
    if precision in CALIBRATED:
        (source,) = builder.graphs.values()
        assert builder.table is not None or builder.graph.quantized
        if builder.graph.quantized:
            return source, None
        assert builder.table is not None
        images = builder.table.images
        return source, f"{precision}, {builder.table.method} ranges of {images} images"
    form = WEIGHT_FORMS.get(precision)
    if form is None or target.ships != "tflite":
        return graph, None
    return form.make(graph), form.graph


def _check(table: CalibrationTable, graph: onnx.ModelProto) -> None:
    expected = model_hash(graph)
    if table.model_sha256 != expected:
        raise CalibrationError(
            f"the calibration table was made for the graph {table.model_sha256[:16]}, the "
            f"reference gives {expected[:16]}; give the table that the candidate was made with, or "
            "none"
        )


def _form(stage: Stage, expected: str, found: str, run: Callable[..., Logits]) -> Form:
    return Form(stage=stage, expected=expected, found=found, run=run)
