"""``edgecls drift --on``: the devices answer there, the comparison is here."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .remote import finish, read_images
from .remote_predict import ask_devices, forget, write_answers
from .text import printable_lines

if TYPE_CHECKING:
    from ..core.progress import Progress
    from ..devices.remote import Outcome
    from ..drift.report import DriftReport
    from ..workflows.answering import DataOptions
    from ..workflows.drift import DriftOptions
    from ..workflows.sources import Source


def answered_on(
    bundles: Sequence[str], on: Sequence[str], data: DataOptions, options: dict[str, Any], *,
    as_json: bool,
) -> list[Outcome[Source]]:  # fmt: skip
    """Return what each device answered to the images, as a source of a comparison."""
    from ..core.errors import DataError
    from ..data.images import list_images, select_images
    from ..devices.remote import Outcome
    from ..runtimes.logits_file import LogitsFile
    from ..workflows.sources import Recorded

    if len(bundles) != 1:
        raise click.UsageError("--on runs one BUNDLE on every device")
    if data.data is None:
        raise click.UsageError("--on needs the images: --data DIR")
    chosen = select_images(list_images(data.data), data.images, data.seed)
    named = {str(image.path): image.name for image in chosen}
    images, errors = read_images({path: path for path in named})
    outcomes = ask_devices(
        bundles[0], images, on, quiet=as_json,
        **{name: options[name] for name in ("backend", "allow_fallback", "threads")},
    )  # fmt: skip
    folder = Path(click.get_current_context().with_resource(tempfile.TemporaryDirectory()))
    sources: list[Outcome[Source]] = []
    for index, outcome in enumerate(outcomes):
        error = outcome.error
        source: Source | None = None
        if outcome.value is not None:
            file = folder / f"{index}.logits"
            try:
                write_answers(outcome.value, file, images, errors, named)
                name = f"{bundles[0]} on {outcome.device}"
                source = Recorded(name=name, file=LogitsFile(file))
            except DataError as found:
                error = found
        sources.append(Outcome(device=outcome.device, value=source, error=error))
    forget(outcomes)
    return sources


def only(answered: Sequence[Outcome[Source]]) -> Source:
    """Return the one device's answers.

    Raises:
        EdgeclsError: It gave none.
    """
    (outcome,) = answered
    if outcome.error is not None:
        raise outcome.error
    assert outcome.value is not None
    return outcome.value


def drift_several(
    answered: Sequence[Outcome[Source]], asked: DriftOptions, progress: Progress, *, as_json: bool
) -> int:
    """Judge each device against the reference; without one, compare them with each other."""
    from ..core.errors import EdgeclsError
    from ..devices.remote import Outcome, worst
    from ..workflows.drift import drift
    from ..workflows.matrix import matrix
    from .drift_output import print_matrix, print_report

    if asked.reference is None and asked.baseline is None:
        sources = [outcome.value for outcome in answered if outcome.value is not None]
        failed = [outcome.error for outcome in answered if outcome.error is not None]
        if len(sources) < 2:
            raise failed[0]
        for error in failed:
            click.echo(f"error: {printable_lines(str(error))}", err=True)
        compared = matrix(sources, asked.data, progress, asked.scale)
        print_matrix(compared, as_json=as_json)
        return worst([*(error.exit_code for error in failed), 4 if compared.skipped else 0])
    reports: list[Outcome[DriftReport]] = []
    for outcome in answered:
        report: DriftReport | None = None
        why = outcome.error
        if outcome.value is not None:
            try:
                report = drift(outcome.value, asked, progress)
            except EdgeclsError as found:
                why = found
        reports.append(Outcome(device=outcome.device, value=report, error=why))
    return finish(
        reports, as_json=as_json, show=print_report, builtin=lambda found: found.to_dict(),
        code_of=lambda found: found.exit_code,
    )  # fmt: skip
