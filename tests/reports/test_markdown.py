"""The report that carries a verdict: its JSON, Markdown, and the words of a check."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edgecls.drift import Budgets, DriftReport, Metrics, Skipped, compare, judge
from edgecls.drift.explanation import Explanation
from edgecls.drift.explanation_wording import cost_cells
from edgecls.drift.gate import Check
from edgecls.drift.wording import check_notes, check_row
from edgecls.reports.markdown import explanation_to_markdown, to_markdown


def metrics(*, images: int, lost: int, truth: bool = True) -> Metrics:
    right, wrong = [1.0, 0.0], [0.0, 1.0]
    reference = np.asarray([right] * images, np.float32)
    candidate = np.asarray([wrong] * lost + [right] * (images - lost), np.float32)
    names = [f"{index:04d}.png" for index in range(images)]
    return compare(names, reference, candidate, [0] * images if truth else None)


def report(**changes: object) -> DriftReport:
    found = metrics(images=4, lost=1)
    fields: dict[str, object] = {
        "reference": "lenet5",
        "candidate": "out/raspberry-pi",
        "backends": {"reference": "torch", "candidate": "litert"},
        "truth": "ground truth from labels.csv",
        "metrics": found,
        "verdict": judge(found, Budgets()),
        "labels": ("zero", "one"),
    }
    return DriftReport(**{**fields, **changes})  # type: ignore[arg-type]


def test_json() -> None:
    text = report().to_json()
    found = json.loads(text)

    assert text == report().to_json()
    assert text.endswith(b"}\n")
    assert found["verdict"]["outcome"] == "undecided"
    assert found["verdict"]["confidence"] == 95.0
    (check,) = found["verdict"]["checks"]
    assert (check["measure"], check["value"], check["limit"]) == ("top1_drop", 25.0, 1.0)
    assert check["lower"] < 1.0 < check["upper"]
    assert found["summary"]["reference_top1"] == 100.0
    assert found["summary"]["candidate_top1"] == 75.0
    assert found["summary"]["mcnemar_p"] == 1.0
    assert found["summary"]["agreement_interval"] == pytest.approx([30.06, 95.44], abs=0.01)
    assert found["summary"]["images_needed"] == check["images_needed"] > 4
    assert [flip["image"] for flip in found["metrics"]["flips"]] == ["0000.png"]
    assert "moments" not in found["metrics"]["graded"]["reliability"]


MARKDOWN = """\
# Drift: undecided

Candidate out/raspberry-pi (litert) against reference lenet5 (torch), 4 images; \
ground truth from labels.csv.

| check | measured | true value | budget | outcome |
| --- | --- | --- | --- | --- |
| top-1 drop | 25.00 | {bounds} | &lt;= 1 points | undecided |

- top-1 drop: about {needed} images would decide it ({more} more)
- these numbers hold with probability 80 %, if the true value is the measured one (a gain counts \
as 0) and answers change as often as here

Each bound of a true value holds with the verdict's confidence 95 %.

|  | reference | candidate |
| --- | --- | --- |
| top-1 | 100.00 % | 75.00 % |
| top-5 | 100.00 % | 100.00 % |
| ECE | 26.89 % | 1.89 % |

Top-1 agreement 75.00 % (95 % interval 30.06 .. 95.44). 1 right answer was lost and 0 gained \
(exact McNemar p = 1).

Logits differ by 0.25 on average and by 1 at most, which is 1 of the largest.

| difference | median | 90 % | 99 % | 99.9 % |
| --- | --- | --- | --- | --- |
| of a logit | 0 | 1 | 1 | 1 |
| of an image's probabilities | 0 | 0.469 | 0.469 | 0.469 |

## Images that changed their answer: 1, the worst first

| image | truth | reference | candidate |
| --- | --- | --- | --- |
| 0000.png | 0 zero | 0 zero (0.73) | 1 one (0.73) |

## Images that could not be compared

| image | why |
| --- | --- |
| a\\|b.png | &lt;b> damaged |
"""


def test_markdown() -> None:
    skipped = (Skipped(image="a|b.png", reason="<b> damaged"),)
    check = report().verdict.checks[0]
    assert check.images_needed is not None

    assert to_markdown(report(skipped=skipped)) == MARKDOWN.format(
        bounds=check_row(check, None)[2], needed=check.images_needed, more=check.images_needed - 4
    )


def test_markdown_without_truth_or_flips() -> None:
    found = metrics(images=2, lost=0, truth=False)
    verdict = judge(found, Budgets(min_agreement=99))
    text = to_markdown(report(metrics=found, verdict=verdict, truth=None))

    assert "No image changed its answer." in text
    assert "no ground truth" in text
    assert "| top-1 |" not in text
    assert "McNemar" not in text


def test_markdown_is_of_bounded_length() -> None:
    found = metrics(images=80, lost=60)
    text = to_markdown(report(metrics=found, verdict=judge(found, Budgets()), labels=None))

    assert text.count(".png |") == 50
    assert "The first 50; the JSON report has 60." in text
    assert "| 0000.png | 0 | 0 (0.73) | 1 (0.73) |" in text


def test_words_of_a_class_check() -> None:
    check = Check(
        measure="class_drop", limit=10, value=30.0, lower=12.0, upper=44.0, outcome="failed",
        class_index=1, classes_failed=tuple(range(12)), classes_judged=15, classes_left_out=3,
        class_images=29,
    )  # fmt: skip

    assert check_row(check, ("zero", "one")) == (
        "largest class drop (1 one)", "30.00", "12.00 .. 44.00", "<= 10 points", "failed",
    )  # fmt: skip
    assert check_notes(check, 500, None) == [
        "largest class drop: above the budget: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more",
        "largest class drop: judged in the 15 of 18 classes that have enough images; 3 have fewer "
        "than the 29 images that can show it",
    ]


def test_markdown_of_an_explanation(explanation: Explanation) -> None:
    lines = explanation_to_markdown(explanation).splitlines()
    interval = cost_cells(explanation.stages[0].cost)[1]

    assert lines[0] == "# Where the drop comes from"
    assert "Shown to cost something: channel order." in lines[2]
    assert f"| channel order | RGB | BGR | 9.00 | {interval} | 9.00 | yes |" in lines
    assert "No difference in: orientation, normalisation." in lines
    assert any(line.endswith("| Conv | 41.00 % | 3.00 % | 2.00 % | 0.5 | - |") for line in lines)
    assert "<script>" not in "".join(lines)
    assert lines[-1].startswith("- x")
