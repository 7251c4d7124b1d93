"""A report as a file; its name's ending says in which form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from ..core.errors import UsageError
from ..core.files import write_atomic
from ..core.text import as_utf8
from ..drift.certificate import Certificate
from ..drift.explanation import Explanation
from ..drift.matrix import Matrix
from ..drift.report import DriftReport
from .html import certificate_to_html, explanation_to_html, matrix_to_html, to_html
from .junit import to_junit
from .markdown import explanation_to_markdown, matrix_to_markdown, to_markdown
from .sarif import to_sarif

T = TypeVar("T")

SUFFIXES: Final[tuple[str, ...]] = (".json", ".md", ".xml", ".sarif", ".html")
# A comparison of several sources and an explanation have no checks that could pass or fail.
UNJUDGED_SUFFIXES: Final[tuple[str, ...]] = (".json", ".md", ".html")
CERTIFICATE_SUFFIXES: Final[tuple[str, ...]] = (".json", ".html")


def write_report(report: DriftReport, path: Path, *, images: Path | None = None) -> None:
    """Write a drift check: the old file or the whole new one, never a part.

    Args:
        report: What was found.
        path: Ends in one of ``SUFFIXES``.
        images: The folder that the images' names start from, for the thumbnails of HTML.

    Raises:
        UsageError: Another ending.
        OSError: The file cannot be written.
    """
    forms: dict[str, Callable[[], str | bytes]] = {
        ".json": report.to_json,
        ".md": lambda: as_utf8(to_markdown(report)),
        ".xml": lambda: to_junit(report),
        ".sarif": lambda: to_sarif(report),
        ".html": lambda: to_html(report, images),
    }
    write_bytes(path, forms[check_report_path(path)]())


def write_matrix(found: Matrix, path: Path) -> None:
    """Write a comparison of several sources; as ``write_report``.

    Raises:
        UsageError: An ending that is not in ``UNJUDGED_SUFFIXES``.
        OSError: The file cannot be written.
    """
    _write_unjudged(path, found.to_json, matrix_to_markdown, matrix_to_html, found)


def write_explanation(found: Explanation, path: Path) -> None:
    """Write where a drop comes from; as ``write_report``.

    Raises:
        UsageError: An ending that is not in ``UNJUDGED_SUFFIXES``.
        OSError: The file cannot be written.
    """
    _write_unjudged(path, found.to_json, explanation_to_markdown, explanation_to_html, found)


def write_certificate(found: Certificate, path: Path) -> None:
    """Write a certificate; as ``write_report``.

    Raises:
        UsageError: An ending that is not in ``CERTIFICATE_SUFFIXES``.
        OSError: The file cannot be written.
    """
    as_json = check_certificate_path(path) == ".json"
    write_bytes(path, found.to_json() if as_json else as_utf8(certificate_to_html(found)))


def check_certificate_path(path: Path) -> str:
    """Return the ending of ``path`` in lower case.

    Raises:
        UsageError: No certificate can be written in the form that it asks for.
    """
    return _check_suffix(path, "-o", CERTIFICATE_SUFFIXES)


def _write_unjudged(
    path: Path,
    to_json: Callable[[], str | bytes],
    as_markdown: Callable[[T], str],
    as_html: Callable[[T], str],
    found: T,
) -> None:
    forms: dict[str, Callable[[], str | bytes]] = {
        ".json": to_json,
        ".md": lambda: as_utf8(as_markdown(found)),
        ".html": lambda: as_html(found),
    }
    write_bytes(path, forms[check_report_path(path, judged=False)]())


def write_bytes(path: Path, data: str | bytes) -> None:
    """Write a report whole; text as UTF-8."""
    write_atomic(path, data.encode() if isinstance(data, str) else data)


def check_report_path(path: Path, *, judged: bool = True) -> str:
    """Return the ending of ``path`` in lower case.

    Args:
        path: Where a report is to be written.
        judged: Whether it has a verdict; several sources are only compared with each other.

    Raises:
        UsageError: No report can be written in the form that it asks for.
    """
    if judged:
        return _check_suffix(path, "--report", SUFFIXES)
    why = " (without a verdict there is nothing to pass or fail)"
    return _check_suffix(path, "--report", UNJUDGED_SUFFIXES, why)


def _check_suffix(path: Path, option: str, suffixes: tuple[str, ...], why: str = "") -> str:
    suffix = path.suffix.lower()
    if suffix not in suffixes:
        *others, last = suffixes
        raise UsageError(
            f"{option} {path}: expected a name that ends in {', '.join(others)} or {last}, "
            f"found {path.suffix or 'no ending'}{why}"
        )
    return suffix
