"""An evaluation as a page and as Markdown."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..core.errors import ImageError
from ..core.text import as_utf8
from ..drift.evaluation import ClassScore, Count, Evaluation
from ..drift.mistakes import Mistake
from .charts import reliability_marks
from .confusion import MOST_CLASSES, count_grid, heat_cells
from .escaping import plain
from .html import render
from .markdown import table_lines
from .write import check_report_path, write_bytes

Picture = Callable[[str], tuple[str, bytes]]

MISTAKES_SHOWN: Final = 24
PAIRS_SHOWN: Final = 20
CLASSES_SHOWN: Final = 200
_HEAT: Final = 100
_SKIPPED_SHOWN: Final = 100


def write_evaluation(found: Evaluation, path: Path, picture: Picture | None = None) -> None:
    """Write an evaluation: the old file or the whole new one, never a part.

    Args:
        found: What was found.
        path: Ends in .json, .md or .html.
        picture: Shows images by their names, for HTML.

    Raises:
        UsageError: Another ending.
        OSError: The file cannot be written.
    """
    suffix = check_report_path(path, judged=False)
    if suffix == ".json":
        write_bytes(path, found.to_json())
    elif suffix == ".md":
        write_bytes(path, as_utf8(evaluation_to_markdown(found)))
    else:
        write_bytes(path, as_utf8(evaluation_to_html(found, picture)))


def evaluation_to_html(found: Evaluation, picture: Picture | None = None) -> str:
    """Return an evaluation as a page that needs nothing else."""
    few = len(found.per_class) <= MOST_CLASSES
    places = {score.index: place for place, score in enumerate(found.per_class)}
    cells = [(places[cell.truth], places[cell.answer], cell.images) for cell in found.confusion]
    return render(
        "evaluation.html",
        title=f"Evaluation: {found.model}",
        found=found,
        grid=count_grid(cells, len(places)) if few else None,
        heat=heat_cells(cells) if not few and len(places) <= _HEAT else (),
        pairs=_pairs(found),
        classes=_shown_classes(found),
        marks=reliability_marks(found.reliability),
        mistakes=[_shown(mistake, picture) for mistake in found.mistakes[:MISTAKES_SHOWN]],
        skipped=found.skipped[:_SKIPPED_SHOWN],
    )


def evaluation_to_markdown(found: Evaluation) -> str:
    """Return an evaluation as Markdown."""
    rows = [
        (name, f"{value:.2f} %", f"{low:.2f} .. {high:.2f}")
        for name, value, (low, high) in (
            ("top-1", found.top1, found.top1_interval),
            ("top-5", found.top5, found.top5_interval),
        )
    ]
    rows += [
        (name, f"{value:.2f} %", "")
        for name, value in (
            ("mean precision", found.precision), ("mean recall", found.recall),
            ("mean F1", found.f1), ("calibration error (ECE)", found.ece),
        )
    ]  # fmt: skip
    classes = [(found.name_of(score.index), *score_cells(score)) for score in _shown_classes(found)]
    pairs = [
        (found.name_of(c.truth), found.name_of(c.answer), str(c.images)) for c in _pairs(found)
    ]
    worst = [
        (m.image, found.name_of(m.truth), f"{found.name_of(m.answer)} ({m.confidence:.2f})")
        for m in found.mistakes[:MISTAKES_SHOWN]
    ]
    lines = [
        f"# Evaluation of {plain(found.model)}",
        "",
        f"{plain(found.backend)}, {found.images} images; {plain(found.truth)}.",
        "",
        *table_lines(("", "measured", "95 % interval"), rows),
        "",
        "## Classes",
        "",
        *table_lines(("class", "precision", "recall", "F1", "images"), classes),
    ]
    if pairs:
        lines += ["", "## Most confused", "", *table_lines(("class", "answer", "images"), pairs)]
    if worst:
        lines += ["", f"## The surest of {found.wrong} wrong answers", ""]
        lines += table_lines(("image", "class", "answer"), worst)
    if found.skipped:
        skipped = [(item.image, item.reason) for item in found.skipped]
        lines += [
            "",
            "## Images that could not be read",
            "",
            *table_lines(("image", "why"), skipped),
        ]
    return "\n".join(lines) + "\n"


def score_cells(score: ClassScore) -> tuple[str, str, str, str]:
    """Return a class's precision, recall, F1 and images in words."""
    return (
        "-" if score.precision is None else f"{score.precision:.1f} %",
        "-" if score.recall is None else f"{score.recall:.1f} %",
        f"{score.f1:.1f} %",
        str(score.images),
    )


def _pairs(found: Evaluation) -> list[Count]:
    wrong = [cell for cell in found.confusion if cell.truth != cell.answer]
    return sorted(wrong, key=lambda c: (-c.images, c.truth, c.answer))[:PAIRS_SHOWN]


def _shown_classes(found: Evaluation) -> list[ClassScore]:
    """Return all classes, or of many the worst."""
    if len(found.per_class) <= CLASSES_SHOWN:
        return list(found.per_class)
    return sorted(found.per_class, key=lambda score: (score.f1, score.index))[:CLASSES_SHOWN]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """A mistake; ``source`` is a data URI, or else ``missing`` says why there is none."""

    mistake: Mistake
    source: str | None
    missing: str
    tiny: bool


def _shown(mistake: Mistake, picture: Picture | None) -> _Shown:
    if picture is None:
        return _Shown(mistake=mistake, source=None, missing="no images were given", tiny=False)
    try:
        media, data = picture(mistake.image)
    except ImageError as error:
        return _Shown(mistake=mistake, source=None, missing=error.reason, tiny=False)
    source = f"data:{media};base64,{base64.b64encode(data).decode()}"
    return _Shown(mistake=mistake, source=source, missing="", tiny=media == "image/png")
