"""The chain from answers that were kept, or from another bundle: its model is swapped at once."""

from __future__ import annotations

from pathlib import PurePosixPath

from ...core.errors import UsageError
from ...runtimes import Predictor
from ..sources import Live, Recorded, Source
from .images import encoding
from .links import Links
from .reference import Past, recorded_classes
from .shipped import PredictorRun


def link_bundle(links: Links, reference: Live, candidate: Source) -> None:
    """Swap the data, the preprocessing, and one bundle for the other.

    Raises:
        UsageError: The reference is no bundle.
    """
    if reference.predictor is None:
        raise UsageError(f"{reference.name} is no bundle")
    links.size = reference.size
    links.runs.append(PredictorRun(reference.predictor))
    links.add_data()
    links.add_preprocessing(candidate.preprocess)
    if isinstance(candidate, Recorded):
        links.add_run(
            "model",
            f"{reference.name} on {reference.backend}",
            f"what {candidate.backend} answered",
            recorded_classes(candidate, links.images),
        )
        return
    assert candidate.predictor is not None
    ours, theirs = reference.predictor, candidate.predictor
    if (ours.backend, _digest(ours)) == (theirs.backend, _digest(theirs)):
        links.same.append("model")
    else:
        links.add_run(
            "model",
            f"{reference.name} on {reference.backend}",
            f"{candidate.name} on {candidate.backend}",
            PredictorRun(theirs),
        )
    links.notes.append(
        "what the conversion itself costs, and its layers, need the model: --reference MODEL"
    )


def link_past(links: Links, reference: Past, candidate: Source) -> None:
    """Swap what answered for the candidate, then the data and the preprocessing around it.

    The reference cannot be run: the candidate's model runs on its images, prepared as they were.
    Where these are not there either, data and model change at once, and are one stage if both did.
    """
    classes, changed = reference.of(links.originals)
    links.runs.append(classes)
    if isinstance(candidate, Recorded):
        links.add_run(
            "model",
            reference.how,
            f"what {candidate.backend} answered",
            recorded_classes(candidate, links.images),
        )
        links.notes.append("neither side can be run: nothing but the whole was compared")
        return
    assert candidate.predictor is not None
    links.size = candidate.size
    same_bundle = reference.bundle == candidate.predictor.bundle.sha256
    run = PredictorRun(candidate.predictor)
    if changed:
        before = " and ".join(sorted({PurePosixPath(name).suffix for name in changed}))
        found = f"{encoding(links.images)}; {len(changed)} of {len(links.images)} files differ"
        if not same_bundle:
            found = f"{found}; and {candidate.name} on {candidate.backend}"
            links.notes.append(
                "data and model changed at once and cannot be told apart: give the files that the "
                "reference saw with --reference-data DIR, or a reference that can be run"
            )
        links.runs.append(run)
        expected = f"the {before} files that {reference.how} saw"
        links.add("data", expected, found, run=1, files=len(links.files) - 1)
    elif same_bundle:
        links.add_run("backend", reference.how, f"{candidate.backend} here", run)
    else:
        links.add_run("model", reference.how, f"{candidate.name} on {candidate.backend}", run)
    links.base = 1
    if not changed:
        links.add_data()
    links.add_preprocessing(candidate.preprocess)


def _digest(predictor: Predictor) -> str:
    return predictor.bundle.manifest.files[predictor.artefact.path].sha256
