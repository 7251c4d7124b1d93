"""A candidate against its reference, or against its baseline, on the same images."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..core.errors import UsageError
from ..core.progress import Progress
from ..core.text import as_utf8
from ..drift.baseline import Baseline, read_baseline
from ..drift.budgets import Budgets
from ..drift.gate import judge
from ..drift.partial import Partial
from ..drift.report import DriftReport, Provenance, Skipped
from .answering import DataOptions, gather
from .latency import measure_latency
from .leakage import note_leakage
from .scale import HERE, Scale, run
from .shards import Job
from .sources import ModelOptions, Source, open_source


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftOptions:
    """What a candidate is compared with, on which images, and what it may cost.

    Attributes:
        reference: A bundle's path, a file of logits or a model source; or
        baseline: a file that ``save_baseline`` wrote.
        model: Of a reference that is a model; its preprocessing is the candidate's by default.
        data: The images.
        budgets: The limits.
        save_baseline: Where the candidate's answers are kept if the verdict is passed.
        timed: On how many images both sides are timed, after the comparison.
        threads: CPU threads of the reference; None leaves them to its runtime.
        scale: Who does the work.
    """

    reference: str | None = None
    baseline: Path | None = None
    model: ModelOptions = field(default_factory=ModelOptions)
    data: DataOptions = field(default_factory=DataOptions)
    budgets: Budgets = field(default_factory=Budgets)
    save_baseline: Path | None = None
    timed: int = 0
    threads: int | None = 1
    scale: Scale = HERE


def drift(candidate: Source, options: DriftOptions, progress: Progress) -> DriftReport:
    """Take both sides' answers to every image and judge the difference.

    Images that cannot be read are left out and listed.

    Raises:
        DataError: There is no readable image, the truth does not fit, or the baseline is of
            another data set, preprocessing or order of the classes.
        UsageError: There is nothing to compare with or to judge by.
    """
    options.budgets.check()
    sources = [candidate]
    baseline = None
    if options.baseline is not None and options.reference is None:
        baseline = read_baseline(options.baseline)
    elif options.reference is not None and options.baseline is None:
        sources.append(
            open_source(
                options.reference, options.model, preprocess=candidate.preprocess,
                threads=options.threads,
            )
        )  # fmt: skip
    else:
        raise UsageError("give --reference or --baseline, one of them")
    past = None if baseline is None else (str(options.baseline), baseline.labels)
    found = gather(sources, options.data, progress, past=past)
    note_leakage(candidate, found.images, progress)
    truth = found.truth
    options.budgets.checked(has_truth=truth is not None, classes=candidate.classes)
    if baseline is not None and options.baseline is not None:
        baseline.check(
            path=options.baseline, preprocess=candidate.preprocess, classes=candidate.classes,
            names=[image.name for image in found.images],
            truth=None if truth is None else truth.classes,
        )  # fmt: skip
    job = Job(
        sources=tuple(source.spec for source in sources),
        baseline=None if baseline is None else as_utf8(str(options.baseline)),
        keep=options.save_baseline is not None,
    )
    partial = run(
        job, sources, found, options.scale, progress, baseline=baseline, options=options.budgets
    )
    metrics = partial.comparison.result()
    verdict = judge(metrics, options.budgets)
    if options.save_baseline is not None:
        # What later runs are compared with must not be what this one has not let pass.
        if verdict.outcome == "passed":
            _baseline(candidate, partial).write(options.save_baseline)
        else:
            progress.note(f"{options.save_baseline}: not written, the verdict is {verdict.outcome}")
    reference = sources[1] if baseline is None else None
    return DriftReport(
        reference=reference.name if reference else str(options.baseline),
        candidate=candidate.name,
        backends={
            "reference": reference.backend if reference else _of(baseline),
            "candidate": candidate.backend,
        },
        truth=truth.how if truth else None,
        metrics=metrics,
        verdict=verdict,
        skipped=tuple(partial.skipped),
        labels=None if candidate.labels is None else candidate.labels.names,
        provenance=Provenance(
            preprocess=candidate.preprocess,
            data=None if options.data.data is None else as_utf8(str(options.data.data)),
            seed=options.data.seed,
        ),
        latency=measure_latency(
            dict(zip(("candidate", "reference"), sources, strict=False)),
            found.images,
            options.timed,
        ),
    )


def save_baseline(
    candidate: Source, data: DataOptions, path: Path, progress: Progress, scale: Scale = HERE
) -> tuple[Baseline, tuple[Skipped, ...]]:
    """Write a model's answers for later comparisons, and return them with what was left out.

    Raises:
        DataError: There is no readable image, or the truth does not fit.
    """
    found = gather([candidate], data, progress)
    job = Job(sources=(candidate.spec,), keep=True)
    partial = run(job, [candidate], found, scale, progress)
    made = _baseline(candidate, partial)
    made.write(path)
    return made, tuple(partial.skipped)


def _baseline(candidate: Source, partial: Partial) -> Baseline:
    return Baseline(
        # A path of this machine would make every machine's file differ.
        model=as_utf8(Path(candidate.name).name), backend=candidate.backend,
        classes=candidate.classes, preprocess=candidate.preprocess, images=partial.kept,
        labels=candidate.labels, skipped=tuple(item.image for item in partial.skipped),
    )  # fmt: skip


def _of(baseline: Baseline | None) -> str:
    assert baseline is not None
    return f"baseline of {baseline.model} on {baseline.backend}"
