"""The drift check as one page that needs nothing else: no script, no network.

Its content security policy allows images from the page itself and this one style sheet, by its
hash, so that nothing which came with a file's name could load or run anything.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

import jinja2

from ..core.errors import ImageError
from ..core.text import printable
from ..data.thumbnail import thumbnail
from ..drift import certificate_wording, explanation_wording, wording
from ..drift.certificate import Certificate
from ..drift.explanation import Explanation
from ..drift.flips import Flip
from ..drift.gate import Check
from ..drift.matrix import Matrix
from ..drift.metrics import ClassAccuracy, Graded
from ..drift.report import DriftReport
from .charts import (
    DIAGRAM,
    INTERVAL_WIDTH,
    Interval,
    check_interval,
    cost_intervals,
    reliability_marks,
)
from .confusion import MOST_CLASSES, grids, most_confused

FLIPS_SHOWN: Final = 24
CLASSES_SHOWN: Final = 20
PAIRS_SHOWN: Final = 20
_SKIPPED_SHOWN: Final = 100
_THUMBNAIL: Final = 176


def to_html(report: DriftReport, images: Path | None = None) -> str:
    """Return the report as a page.

    Args:
        report: What was found.
        images: The folder that the images' names start from; None shows no thumbnails.
    """
    graded = report.metrics.graded
    return render(
        "drift.html",
        title=f"Drift {report.verdict.outcome}: {report.candidate}",
        report=report,
        summary=report.summary(),
        checks=[_check(report, check) for check in report.verdict.checks],
        flips=[_flip(report, flip, images) for flip in report.metrics.flips[:FLIPS_SHOWN]],
        changed=report.metrics.images - report.metrics.agreed,
        classes=[] if graded is None else _classes(graded),
        grids=() if graded is None or report.metrics.classes > MOST_CLASSES
        else grids(graded.confusion, report.metrics.classes),
        pairs=() if graded is None else most_confused(graded.confusion, PAIRS_SHOWN),
        sides=[] if graded is None else [
            ("reference", reliability_marks(graded.reliability.reference)),
            ("candidate", reliability_marks(graded.reliability.candidate)),
        ],
        skipped=report.skipped[:_SKIPPED_SHOWN],
    )  # fmt: skip


def matrix_to_html(found: Matrix) -> str:
    """Return every pair's agreement as a page."""
    return render(
        "matrix.html",
        title=f"Agreement of {len(found.sources)} sources",
        found=found,
        pairs={(pair.first, pair.second): pair for pair in found.pairs},
        skipped=found.skipped[:_SKIPPED_SHOWN],
    )


def explanation_to_html(found: Explanation) -> str:
    """Return where a drop comes from as a page."""
    costs = [*(stage.cost for stage in found.stages), found.total]
    return render(
        "explanation.html",
        title=f"Where the drop comes from: {found.candidate}",
        found=found,
        drawings=cost_intervals(costs),
        words=explanation_wording,
    )


def certificate_to_html(found: Certificate) -> str:
    """Return whether devices answer alike as a page."""
    return render(
        "certificate.html",
        title=f"Certificate {found.outcome}: {len(found.devices)} devices",
        found=found,
        words=certificate_wording,
        skipped=found.skipped[:_SKIPPED_SHOWN],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _ShownCheck:
    """A check in words and as a drawing."""

    cells: tuple[str, ...]
    outcome: str
    notes: tuple[str, ...]
    drawing: Interval | None


def _check(report: DriftReport, check: Check) -> _ShownCheck:
    return _ShownCheck(
        cells=wording.check_row(check, report.labels),
        outcome=check.outcome,
        notes=tuple(wording.check_notes(check, report.metrics.images, report.labels)),
        drawing=check_interval(check),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _ShownFlip:
    """An image that changed its answer; ``source`` is a data URI, or else ``missing`` says why."""

    flip: Flip
    kind: str
    source: str | None
    missing: str
    tiny: bool


def _flip(report: DriftReport, flip: Flip, images: Path | None) -> _ShownFlip:
    kind = "changed"
    if flip.truth is not None:
        kind = {flip.reference: "lost", flip.candidate: "gained"}.get(flip.truth, "wrong twice")
    source, missing, tiny = None, "no folder of images was given", False
    if images is not None:
        color = report.provenance.preprocess if report.provenance else None
        try:
            media, data = thumbnail(images / flip.image, longest=_THUMBNAIL, color=color)
        except ImageError as error:
            missing = error.reason
        else:
            source = f"data:{media};base64,{base64.b64encode(data).decode()}"
            tiny = media == "image/png"
    return _ShownFlip(flip=flip, kind=kind, source=source, missing=missing, tiny=tiny)


def _classes(graded: Graded) -> list[ClassAccuracy]:
    """Return the classes that changed most; all of a model with few."""
    changed = [
        found for found in graded.classes
        if len(graded.classes) <= CLASSES_SHOWN or found.only_reference or found.only_candidate
    ]  # fmt: skip
    largest = sorted(changed, key=lambda found: (-abs(found.drop), -found.images, found.index))
    return sorted(largest[:CLASSES_SHOWN], key=lambda found: (-found.drop, found.index))


def render(template: str, **values: Any) -> str:
    """Return a template of this room with its values, escaped."""
    style = _read("style.css")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FunctionLoader(_read),
        # What came from names and files shows its control characters, as on a terminal.
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    environment.filters["percent"] = wording.number
    return environment.get_template(template).render(
        **values,
        style=style,
        style_hash=digest,
        wording=wording,
        diagram=DIAGRAM,
        interval_width=INTERVAL_WIDTH,
    )


def _read(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
