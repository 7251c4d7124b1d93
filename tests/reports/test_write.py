"""The ending chooses the form; what stands under the name is whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgecls.core.errors import UsageError
from edgecls.drift import DriftReport
from edgecls.drift.explanation import Explanation
from edgecls.drift.matrix import Matrix
from edgecls.reports import check_report_path, write_explanation, write_matrix, write_report
from edgecls.reports.html import explanation_to_html, matrix_to_html, to_html
from edgecls.reports.junit import to_junit
from edgecls.reports.markdown import explanation_to_markdown, matrix_to_markdown, to_markdown
from edgecls.reports.sarif import to_sarif

Make = Callable[..., DriftReport]


def test_the_ending_chooses_the_form(make: Make, tmp_path: Path) -> None:
    report = make()
    for name in ("drift.json", "drift.md", "drift.xml", "drift.sarif", "DRIFT.HTML"):
        write_report(report, tmp_path / name)

    assert (tmp_path / "drift.json").read_bytes() == report.to_json()
    assert (tmp_path / "drift.md").read_text() == to_markdown(report)
    assert (tmp_path / "drift.xml").read_bytes() == to_junit(report)
    assert (tmp_path / "drift.sarif").read_bytes() == to_sarif(report)
    assert (tmp_path / "DRIFT.HTML").read_text() == to_html(report)


def test_forms_of_a_matrix(matrix: Matrix, tmp_path: Path) -> None:
    for name in ("pairs.json", "pairs.md", "pairs.html"):
        write_matrix(matrix, tmp_path / name)

    assert (tmp_path / "pairs.json").read_bytes() == matrix.to_json()
    assert (tmp_path / "pairs.md").read_text() == matrix_to_markdown(matrix)
    assert (tmp_path / "pairs.html").read_text() == matrix_to_html(matrix)


def test_forms_of_an_explanation(explanation: Explanation, tmp_path: Path) -> None:
    for name in ("why.json", "why.md", "why.html"):
        write_explanation(explanation, tmp_path / name)

    assert (tmp_path / "why.json").read_bytes() == explanation.to_json()
    assert (tmp_path / "why.md").read_text() == explanation_to_markdown(explanation)
    assert (tmp_path / "why.html").read_text() == explanation_to_html(explanation)


@pytest.mark.parametrize("name", ["drift.pdf", "drift", "drift.json.txt"])
def test_an_unknown_ending(make: Make, tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"\.json, \.md, \.xml, \.sarif or \.html, found"):
        write_report(make(), tmp_path / name)

    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["pairs.xml", "pairs.sarif"])
def test_several_sources_have_no_checks(name: str) -> None:
    with pytest.raises(UsageError, match=r"\.json, \.md or \.html, .*without a verdict"):
        check_report_path(Path(name), judged=False)


@pytest.mark.parametrize("suffix", [".json", ".md", ".xml", ".sarif", ".html"])
def test_a_report_that_cannot_be_written_leaves_the_old_one(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    file = tmp_path / f"drift{suffix}"
    file.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_report(make(), file)

    assert [(found.name, found.read_text()) for found in tmp_path.iterdir()] == [(file.name, "old")]


def test_a_name_that_is_no_text(make: Make, tmp_path: Path) -> None:
    """Bytes of a file's name that are no UTF-8 arrive as lone surrogates."""
    report = make(candidate="caf\udce9.logits")
    for suffix in (".json", ".md", ".xml", ".sarif", ".html"):
        write_report(report, tmp_path / f"drift{suffix}")
        text = (tmp_path / f"drift{suffix}").read_text(encoding="utf-8")

        assert "caf" in text, suffix
