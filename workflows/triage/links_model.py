"""The chain from a model to what was exported from it."""

from __future__ import annotations

from pathlib import Path

from ...calibration.table_file import read_table
from ...core.files import sha256_bytes
from ...core.progress import Progress
from ...runtimes import Predictor
from ...targets import get_target
from ..sources import Live, Recorded, Source
from .links import Links
from .plan import Plan, make_plan
from .reference import Model, recorded_classes
from .shipped import PredictorRun, layers_of, shipped_by
from .stored import differing, read_stored


def link_model(
    links: Links, reference: Model, candidate: Source, calib_table: Path | None, progress: Progress
) -> None:
    """Swap the data, the preprocessing and each form of the model, up to what answers.

    Raises:
        EdgeclsError: The model cannot be converted.
    """
    links.size = reference.size
    predictor = candidate.predictor if isinstance(candidate, Live) else None
    if isinstance(candidate, Live):
        assert predictor is not None
        manifest = predictor.bundle.manifest
        target, precision, calibration = manifest.target, predictor.precision, manifest.calibration
        tuning = manifest.tuning
    else:
        header = candidate.file.header
        target, precision, calibration = header.target, header.precision, None
        tuning = None
    plan = make_plan(
        reference.loaded,
        target=get_target(target),
        precision=precision,
        preprocess=reference.preprocess,
        size=reference.size,
        images=links.originals,
        calibration=calibration,
        table=read_table(calib_table) if calib_table else None,
        left_float=tuning.left_float if tuning else (),
        progress=progress,
    )
    links.runs.append(plan.first)
    links.add_data()
    links.add_preprocessing(candidate.preprocess)
    if not reference.own:
        links.notes.append(
            f"the preprocessing was not compared: {reference.name} does not say how its images "
            "are prepared; give --preprocess"
        )
    for form in plan.forms:
        links.add_run(form.stage, form.expected, form.found, form.run)
    links.same += plan.same
    if tuning is not None and tuning.repairs:
        links.notes.append(
            f"the bundle was repaired ({', '.join(tuning.repairs)}), the reference is converted "
            "without: what that changed is in the stage 'file'"
        )
    if predictor is not None:
        _link_bundle_file(links, plan, reference, predictor)
    elif isinstance(candidate, Recorded):
        links.add_run(
            "backend",
            "the file that the reference gives, run here",
            f"what {candidate.backend} answered",
            recorded_classes(candidate, links.images),
        )


def _link_bundle_file(links: Links, plan: Plan, reference: Model, predictor: Predictor) -> None:
    shipped = shipped_by(predictor)
    if shipped.data == plan.built.data:
        links.same.append("file")
    else:
        expected, found = differing(
            read_stored(plan.built.data, shipped.form),
            read_stored(shipped.data, shipped.form),
            exact=plan.exact,
            same_graph=sha256_bytes(plan.graph.model.SerializeToString(deterministic=True))
            == shipped.graph_sha256,
        )
        links.add_run("file", expected, found, shipped.run())
    if shipped.backend == predictor.backend:
        links.same.append("backend")
    else:
        links.add_run("backend", shipped.backend, predictor.backend, PredictorRun(predictor))
    links.layers, why = layers_of(
        shipped, plan, links.originals, reference.preprocess, reference.size
    )
    if why is not None:
        links.notes.append(why)
