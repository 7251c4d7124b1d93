"""A verdict says of how many classes it speaks, in every form of report."""

from __future__ import annotations

import numpy as np
import pytest

from edgecls.cli.drift_output import print_report
from edgecls.drift import Budgets, DriftReport, compare, judge
from edgecls.drift.wording import sentence
from edgecls.reports.html import to_html
from edgecls.reports.junit import to_junit
from edgecls.reports.markdown import to_markdown

SCOPE = "in the 2 of 5 classes that have enough images"


def report(*images: int) -> DriftReport:
    """Return the report of two models that are alike, on so many images of each class."""
    truth = np.repeat(np.arange(len(images)), images)
    logits = np.eye(len(images), dtype=np.float32)[truth]
    metrics = compare([f"{index}.png" for index in range(len(truth))], logits, logits, truth)
    return DriftReport(
        reference="a", candidate="b", backends={"reference": "torch", "candidate": "litert"},
        truth="ground truth from labels.csv", metrics=metrics,
        verdict=judge(metrics, Budgets(max_class_drop=10)),
    )  # fmt: skip


def test_every_form_says_how_many_classes_are_judged(capsys: pytest.CaptureFixture[str]) -> None:
    found = report(200, 200, 5, 5, 5)
    print_report(found)
    shown = " ".join(capsys.readouterr().out.split())

    assert found.verdict.outcome == "passed"
    for text in (sentence(found.verdict), to_markdown(found), to_html(found), shown):
        assert f"a single class is judged only {SCOPE}" in text
    assert f"a single class is judged only {SCOPE}" in to_junit(found).decode()


def test_where_every_class_is_judged_nothing_is_said() -> None:
    assert "a single class" not in sentence(report(200, 200).verdict)
