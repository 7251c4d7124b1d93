"""A model that is to be exported: loaded, converted, compared, and refused where it must be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..calibration.table import CalibrationTable
from ..calibration.table_file import read_table
from ..core.preprocess import Preprocess, resolve_preprocess
from ..core.progress import Progress
from ..core.values import CALIBRATED, Precision
from ..data.images import ImageFile, list_images, select_images
from ..data.labels import Labels
from ..export.preflight import preflight
from ..models import LoadedModel
from ..targets import Target
from ..targets.jetpack import JetPack, Module
from .export_options import (
    ExportOptions,
    device_of,
    note_learned,
    own_precision,
    require_images,
)
from .graph import CheckedGraph, checked_graph, labels_of, load_trained, resolve_input
from .samples import GOLDEN, Samples, real_samples, synthetic_samples
from .timing import Stages


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReady:
    """A model that can be exported.

    Attributes:
        options: What was asked for.
        targets: For which.
        precision: In which; that of a quantized graph is its own.
        loaded: The model.
        preprocess: What its images go through.
        size: (height, width) of its input.
        labels: Its classes' names, where they are known.
        images: To calibrate with; none without ``--calib``.
        samples: On which the steps are compared.
        graph: As it is quantized: simplified, and compared with the model.
        table: Ranges that were given, or that the model brought.
        device: The JetPack and module that graphs are checked for; None where none was named.
    """

    options: ExportOptions
    targets: tuple[Target, ...]
    precision: Precision
    loaded: LoadedModel
    preprocess: Preprocess
    size: tuple[int, int]
    labels: Labels | None
    images: tuple[ImageFile, ...]
    samples: Samples
    graph: CheckedGraph
    table: CalibrationTable | None
    device: tuple[JetPack, Module | None] | None


def prepare_export(
    options: ExportOptions, targets: tuple[Target, ...], precision: Precision, stages: Stages,
    progress: Progress,
) -> ExportReady:  # fmt: skip
    """Load a model and make its graph; refuse what cannot be exported so.

    Raises:
        EdgeclsError: With the cause's exit code.
    """
    table = read_table(options.calib_table) if options.calib_table else None
    if table is not None:
        table.ranges()  # a part of a table is refused before the model is converted
    images = _calibration_images(options, progress)
    given = resolve_preprocess(options.preprocess) if options.preprocess else None
    with stages.stage("load model"):
        loaded = load_trained(options, progress)
        if table is None and loaded.table is not None and precision in CALIBRATED:
            table = read_table(loaded.table)
            note_learned(loaded, targets, precision, progress)
        preprocess, size = resolve_input(loaded, given)
        labels = labels_of(loaded, options.labels)
        samples = _samples(options, images, table, preprocess, size, progress)
    graph = checked_graph(
        loaded, preprocess=preprocess, size=size, tensors=preprocess.normalize(samples.pixels),
        stages=stages,
    )  # fmt: skip
    device = device_of(options, targets)
    if device is not None and not graph.quantized:
        preflight(graph.model, *device)  # before the minutes of calibration
    if labels is not None:
        labels.check(graph.num_classes)
    if graph.quantized:
        precision = own_precision(options, graph, targets)
        progress.note(
            f"{options.source} has Q/DQ of its own: its scales are kept, "
            + ("the points that it lacks are added" if images else "what it leaves float stays so")
        )
    elif table is None:
        require_images(options, targets, precision)
    return ExportReady(
        options=options, targets=targets, precision=precision, loaded=loaded,
        preprocess=preprocess, size=size, labels=labels, images=images, samples=samples,
        graph=graph, table=table, device=device,
    )  # fmt: skip


def _samples(
    options: ExportOptions, images: Sequence[ImageFile], table: CalibrationTable | None,
    preprocess: Preprocess, size: tuple[int, int], progress: Progress,
) -> Samples:  # fmt: skip
    """Return what the steps are compared on, and say where these are no real images."""
    found = real_samples(images, preprocess, size) if images else None
    if found is not None:
        return found
    if images:
        progress.note(
            f"fewer than {GOLDEN} of the calibration images can be read: the steps are compared "
            "on synthetic images, which are the golden samples too"
        )
    elif table is not None:
        progress.note("without --calib the golden samples are synthetic; give it for real ones")
    return synthetic_samples(preprocess, size, options.seed)


def _calibration_images(options: ExportOptions, progress: Progress) -> tuple[ImageFile, ...]:
    if options.calib is None:
        return ()
    found = list_images(options.calib)
    if len(found) < options.calib_images:
        progress.note(
            f"{options.calib} has {len(found)} images, not {options.calib_images}: all are used"
        )
    return select_images(found, options.calib_images, options.seed)
