"""Where a candidate's drop comes from: one stage after the other becomes the candidate's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from ...core.errors import DataError, UsageError
from ...core.progress import Progress
from ...data.images import ImageFile, list_images, select_images
from ...data.labels import Labels, read_labels
from ...data.truth import Truth, match_truth
from ...drift.answers import Indices
from ...drift.explanation import Cost, Explanation, Stage, StageFinding, cost_of
from ..answering import DataOptions
from ..sources import Live, ModelOptions, Source
from .chain import Chain, State, Swap, paired
from .images import originals_of
from .labels import described, meaning
from .links import Links
from .links_model import link_model
from .links_past import link_bundle, link_past
from .reference import Model, Past, Reference, open_reference


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainOptions:
    """What a candidate is explained against.

    Attributes:
        reference: A model source, a bundle, or a file of logits; or
        baseline: a file that ``--save-baseline`` wrote.
        model: Of a reference that is a model.
        data: The candidate's images.
        originals: The reference's images, where they are other files of the same names.
        labels: The class names that the reference's outputs have.
        calib_table: The table that the candidate was calibrated with.
    """

    reference: str | None = None
    baseline: Path | None = None
    model: ModelOptions = field(default_factory=ModelOptions)
    data: DataOptions = field(default_factory=DataOptions)
    originals: Path | None = None
    labels: Path | None = None
    calib_table: Path | None = None


def explain(candidate: Source, options: ExplainOptions, progress: Progress) -> Explanation:
    """Attribute what a candidate loses to the stages of its pipeline.

    Args:
        candidate: A bundle or a file of logits.
        options: What it is compared with.
        progress: Shows how far it is.

    Raises:
        DataError: There is no image that all pipelines can take, or the two do not fit together.
        UsageError: Something to compare is missing, or the candidate is a model.
        EdgeclsError: The reference cannot be opened or converted.
    """
    if isinstance(candidate, Live) and candidate.predictor is None:
        raise UsageError(
            f"--explain takes a bundle or a file of logits apart, {candidate.name} is a model; "
            "export it first"
        )
    if options.data.data is None:
        raise UsageError("--explain runs stages on the images: give them with --data DIR")
    reference = open_reference(
        options.reference, options.baseline, options.model, preprocess=candidate.preprocess
    )
    labels = read_labels(options.labels) if options.labels else _labels_of(reference)
    _check_fit(reference, candidate, labels)
    images, truth = _images(candidate, options, labels, progress)
    links = Links(images=images, originals=None, preprocess=reference.preprocess)
    if options.originals is not None:
        links = _with_originals(links, list_images(options.originals))
    if isinstance(reference, Model):
        link_model(links, reference, candidate, options.calib_table, progress)
    elif isinstance(reference, Past):
        link_past(links, reference, candidate)
    else:
        link_bundle(links, reference, candidate)
    outputs = _link_labels(links, labels, candidate)
    chain = Chain(
        files=links.files,
        runs=tuple(links.runs),
        size=links.size,
        meaning=outputs,
    )
    return _told(reference, candidate, links, chain, truth, progress)


def _told(
    reference: Reference,
    candidate: Source,
    links: Links,
    chain: Chain,
    truth: Truth | None,
    progress: Progress,
) -> Explanation:
    """Run the chain and count what each of its swaps costs."""
    states = [links.start]
    for swap in links.swaps:
        states.append(swap(states[-1]))
    alone = [_alone(links, states, place, swap) for place, swap in enumerate(links.swaps)]
    every = dict.fromkeys([*states, *(state for pair in alone if pair for state in pair)])
    answers, taken, reasons = chain.answers(list(every), progress)
    right_class = answers[states[0]] if truth is None else truth.of(links.images)
    right: dict[State, NDArray[np.bool_]] = {
        state: (found == right_class)[taken] for state, found in answers.items()
    }
    if reasons:
        name, reason = next(iter(reasons.items()))
        links.notes.append(f"{int((~taken).sum())} images were left out, e.g. {name}: {reason}")
    findings = [
        StageFinding(
            stage=swap.stage,
            expected=swap.expected,
            found=swap.found,
            cost=_cost(right[before], right[after]),
            alone=_cost(right[pair[0]], right[pair[1]]) if pair else None,
        )
        for swap, before, after, pair in zip(
            links.swaps, states[:-1], states[1:], alone, strict=True
        )
    ]
    first, last = right[states[0]], right[states[-1]]
    order = get_args(Stage)
    return Explanation(
        reference=reference.name,
        candidate=candidate.name,
        measure="agreement" if truth is None else "top1",
        images=len(first),
        reference_percent=100 * float(first.mean()),
        candidate_percent=100 * float(last.mean()),
        total=_cost(first, last),
        stages=tuple(findings),
        same=tuple(sorted(links.same, key=order.index)),
        layers=links.layers,
        notes=tuple(links.notes),
        left_out=int((~taken).sum()),
    )


def _alone(
    links: Links, states: Sequence[State], place: int, swap: Swap
) -> tuple[State, State] | None:
    """Return the states before and after a swap where no other stage was swapped.

    A form of the model builds on the forms before it: they stand on both sides.
    """
    if place < links.base:
        return None
    before = states[links.base]
    if swap.run is not None:
        before = replace(before, run=swap.run - 1)
    return before, swap(before)


def _cost(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> Cost:
    return cost_of(paired(before, after))


def _images(
    candidate: Source, options: ExplainOptions, labels: Labels | None, progress: Progress
) -> tuple[tuple[ImageFile, ...], Truth | None]:
    data = options.data
    assert data.data is not None
    every = list_images(data.data)
    truth = match_truth(
        every, num_classes=candidate.classes, labels=labels or candidate.labels, truth=data.truth
    )
    if truth is not None:
        progress.note(truth.how)
    return select_images(every, data.images, data.seed), truth


def _with_originals(links: Links, originals: Sequence[ImageFile]) -> Links:
    """Pair the images with their originals; those without one are left out."""
    found = originals_of(links.images, originals)
    pairs = [
        (image, original)
        for image, original in zip(links.images, found, strict=True)
        if original is not None
    ]
    if not pairs:
        raise DataError(
            f"none of {len(found)} images has an original of its name, such as "
            f"{originals[0].name!r}, whatever the ending"
        )
    made = Links(
        images=tuple(image for image, _ in pairs),
        originals=tuple(original for _, original in pairs),
        preprocess=links.start.preprocess,
    )
    if len(pairs) < len(found):
        made.notes.append(f"{len(found) - len(pairs)} images have no original and were left out")
    return made


def _link_labels(links: Links, labels: Labels | None, candidate: Source) -> Indices:
    straight = np.arange(candidate.classes)
    if labels is None or candidate.labels is None:
        side = "reference" if labels is None else "candidate"
        hint = "; give them with --labels FILE" if labels is None else ""
        links.notes.append(f"label maps were not compared: the {side} has no class names{hint}")
        return straight
    found = meaning(labels, candidate.labels)
    if (found == straight).all():
        links.same.append("label map")
    else:
        expected, said = described(labels, candidate.labels, found)
        links.add("label map", expected, said, relabelled=True)
    return found


def _labels_of(reference: Reference) -> Labels | None:
    return None if isinstance(reference, Model) else reference.labels


def _check_fit(reference: Reference, candidate: Source, labels: Labels | None) -> None:
    if labels is not None:
        labels.check(candidate.classes)
    if not isinstance(reference, Model) and reference.classes != candidate.classes:
        raise DataError(
            f"{reference.name} has {reference.classes} outputs, {candidate.name} "
            f"{candidate.classes}; explain a bundle by the model that it was made from"
        )
    if isinstance(reference, Past) or not isinstance(candidate, Live):
        return
    if reference.size != candidate.size:
        (ours, theirs) = (f"{w}x{h} px" for h, w in (reference.size, candidate.size))
        raise DataError(
            f"{reference.name} takes {ours}, {candidate.name} {theirs}: their stages cannot be "
            "swapped; give the preprocessing that the model was exported with by --preprocess"
        )
