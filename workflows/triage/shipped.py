"""The file that a candidate ships, and its layers against those of its plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ...core.errors import BackendUnavailableError
from ...core.preprocess import Preprocess
from ...core.values import CALIBRATED, ArtefactFormat, Logits, Pixels, Precision
from ...data.images import ImageFile
from ...data.stream import stream_pixels
from ...drift.explanation import LayerFinding
from ...export.passes import for_one_image
from ...export.tflite import lower
from ...runtimes import Predictor
from ...targets.target import BackendName
from ..weight_forms import WEIGHT_FORMS
from .layers import FloatValues, findings
from .layers_onnx import onnx_layers, with_parameters_of
from .layers_tflite import same_structure, tflite_layers
from .plan import HERE, FileRun, Plan

_IMAGES: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """A file that can run on any machine.

    Attributes:
        data: Its bytes.
        form: Its format.
        precision: Of its arithmetic.
        backend: What runs it here.
        graph_sha256: Of the float graph that it says it was made from.
    """

    data: bytes
    form: ArtefactFormat
    precision: Precision
    backend: BackendName
    graph_sha256: str

    def run(self) -> FileRun:
        """Return what runs it here."""
        return FileRun(self.backend, self.data, self.precision)


def shipped_by(predictor: Predictor) -> Shipped:
    """Return the file that a bundle's predictor runs; instead of an engine, its graph.

    Raises:
        BackendUnavailableError: There is only an engine.
    """
    bundle, artefact = predictor.bundle, predictor.artefact
    if artefact.format not in HERE:
        graph = bundle.find("onnx", artefact.precision)
        if graph is None:
            raise BackendUnavailableError(
                f"{bundle.path} holds only an engine in {artefact.precision}: its layers cannot "
                "be read; export the bundle again"
            )
        artefact = graph
    return Shipped(
        data=bundle.read(artefact.path),
        form=artefact.format,
        precision=artefact.precision,
        backend=HERE[artefact.format],
        graph_sha256=bundle.manifest.model.graph_sha256,
    )


class PredictorRun:
    """Runs what a predictor runs; with another normalisation, the same file anew."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        artefact = predictor.artefact
        self._anew = FileRun(
            predictor.backend,
            predictor.bundle.read(artefact.path),
            artefact.precision,
            engine=artefact.format not in HERE,
        )

    def __call__(self, pixels: Pixels, preprocess: Preprocess) -> Logits:
        """Return logits (N, classes) for pixels (N, H, W, C)."""
        if preprocess == self._predictor.bundle.manifest.preprocess:
            return self._predictor.logits(pixels)
        return self._anew(pixels, preprocess)


def layers_of(
    shipped: Shipped,
    plan: Plan,
    images: Sequence[ImageFile],
    preprocess: Preprocess,
    size: tuple[int, int],
) -> tuple[tuple[LayerFinding, ...], str | None]:
    """Return the layers that depart from the float model, and why there are none to compare.

    Args:
        shipped: The candidate's file.
        plan: What the reference gives today.
        images: The first readable ones are used.
        preprocess: The reference's: layers are judged on what the model was made for.
        size: (height, width) in px.
    """
    if plan.graph.quantized:
        return (), "the layers were not compared: the reference is quantized itself"
    run = FloatValues(for_one_image(plan.graph.model))
    values = []
    for batch in stream_pixels(images, preprocess, size=size):
        values += [run(preprocess.normalize(pixels[None])) for pixels in batch.pixels]
        if len(values) == _IMAGES:
            break
    other = "the layers were not compared: the file has other ones than the reference gives"
    if shipped.form == "tflite":
        if not same_structure(plan.built.data, shipped.data):
            return (), other
        form = WEIGHT_FORMS.get(shipped.precision)
        lowered = lower(plan.source, weights=form.stored if form else "float32")
        planned, found = (
            tflite_layers(data, lowered.forms, values) for data in (lowered.data, shipped.data)
        )
    elif shipped.precision in CALIBRATED:
        theirs = with_parameters_of(plan.source, shipped.data)
        if theirs is None:
            return (), other
        planned, found = (onnx_layers(graph, values) for graph in (plan.source, theirs))
    else:
        return (), None
    return findings(planned, found, run.operators), None
