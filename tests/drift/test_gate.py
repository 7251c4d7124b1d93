"""The gate's verdict and the report that carries it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecls.core.errors import UsageError
from edgecls.drift import DriftReport, Metrics, Skipped, compare, judge


def metrics(*, images: int, lost: int, gained: int = 0, truth: bool = True) -> Metrics:
    """Return a comparison in which ``lost`` right answers were lost and ``gained`` were gained."""
    right, wrong = [1.0, 0.0], [0.0, 1.0]
    reference = [right] * (images - gained) + [wrong] * gained
    candidate = [wrong] * lost + [right] * (images - lost)
    names = [f"{index:04d}.png" for index in range(images)]
    first, second = np.asarray(reference, np.float32), np.asarray(candidate, np.float32)
    return compare(names, first, second, [0] * images if truth else None)


@pytest.mark.parametrize(
    ("images", "lost", "gained", "max_drop", "outcome"),
    [
        (100, 0, 0, 0.0, "passed"),
        (100, 1, 0, 1.0, "passed"),
        (100, 2, 0, 1.0, "failed"),
        (100, 1, 0, 0.0, "failed"),
        (100, 3, 2, 1.0, "passed"),
        (100, 0, 9, 0.0, "passed"),
        # Budgets that binary fractions miss: 3 of 1000 is 0.3 points, 7 of 1000 is 0.7.
        (1000, 3, 0, 0.3, "passed"),
        (1000, 7, 0, 0.7, "passed"),
        (1000, 4, 0, 0.3, "failed"),
        (3, 1, 0, 33.3, "failed"),
    ],
)
def test_drop(images: int, lost: int, gained: int, max_drop: float, outcome: str) -> None:
    verdict = judge(metrics(images=images, lost=lost, gained=gained), max_drop=max_drop)

    assert verdict.outcome == outcome
    assert verdict.exit_code == (0 if outcome == "passed" else 1)
    assert verdict.estimate == "point"
    assert [check.measure for check in verdict.checks] == ["top1_drop"]
    assert verdict.checks[0].value == pytest.approx(100 * (lost - gained) / images)
    assert verdict.checks[0].limit == max_drop


@given(st.integers(1, 400), st.data())
def test_drop_is_exact_for_every_count(images: int, data: st.DataObject) -> None:
    lost = data.draw(st.integers(0, images))
    tenths = data.draw(st.integers(0, 1000))

    verdict = judge(metrics(images=images, lost=lost), max_drop=tenths / 10)

    assert (verdict.outcome == "passed") == (1000 * lost <= tenths * images)


def test_without_truth_the_drop_is_not_replaced_by_something_else() -> None:
    with pytest.raises(UsageError, match=r"--truth FILE.*--min-agreement"):
        judge(metrics(images=10, lost=0, truth=False), max_drop=100)


@pytest.mark.parametrize(("lost", "outcome"), [(1, "passed"), (2, "failed")])
def test_agreement_without_truth(lost: int, outcome: str) -> None:
    verdict = judge(metrics(images=100, lost=lost, truth=False), min_agreement=99.0)

    assert verdict.outcome == outcome
    assert [check.measure for check in verdict.checks] == ["agreement"]
    assert verdict.checks[0].value == 100.0 - lost


@pytest.mark.parametrize(
    ("max_drop", "agreement", "outcome"),
    [(5, 90, "passed"), (5, 96, "failed"), (4, 90, "failed"), (4, 96, "failed")],
)
def test_both_checks_must_hold(max_drop: float, agreement: float, outcome: str) -> None:
    verdict = judge(metrics(images=100, lost=5), max_drop=max_drop, min_agreement=agreement)

    assert verdict.outcome == outcome
    assert len(verdict.checks) == 2


@pytest.mark.parametrize("limits", [{"max_drop": -1}, {"max_drop": float("nan")}, {"max_drop": 101},
                                    {"min_agreement": -0.1}, {"min_agreement": 100.5}])  # fmt: skip
def test_limits_out_of_range(limits: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=r"must lie in 0\.\.100"):
        judge(metrics(images=1, lost=0), **limits)


def report(**changes: object) -> DriftReport:
    found = metrics(images=4, lost=1)
    fields: dict[str, object] = {
        "reference": "lenet5",
        "candidate": "out/raspberry-pi",
        "backends": {"reference": "torch", "candidate": "litert"},
        "truth": "ground truth from labels.csv",
        "metrics": found,
        "verdict": judge(found),
        "labels": ("zero", "one"),
    }
    return DriftReport(**{**fields, **changes})  # type: ignore[arg-type]


def test_json() -> None:
    text = report().to_json()
    found = json.loads(text)

    assert text == report().to_json()
    assert text.endswith(b"}\n")
    assert found["verdict"]["outcome"] == "failed"
    assert found["verdict"]["estimate"] == "point"
    assert found["verdict"]["checks"] == [
        {"measure": "top1_drop", "value": 25.0, "limit": 1.0, "passed": False}
    ]
    assert found["summary"]["reference_top1"] == 100.0
    assert found["summary"]["candidate_top1"] == 75.0
    assert found["metrics"]["flips"] == [
        {"image": "0000.png", "reference": 0, "candidate": 1, "truth": 0}
    ]


MARKDOWN = """\
# Drift: failed

Candidate out/raspberry-pi (litert) against reference lenet5 (torch), 4 images; \
ground truth from labels.csv.

- top-1 drop 25.00 points (limit <= 1): **failed**

Point estimates: what was measured on these images, without an interval.

|  | reference | candidate |
| --- | --- | --- |
| top-1 | 100.00 % | 75.00 % |
| top-5 | 100.00 % | 100.00 % |

Top-1 agreement 75.00 %. Logits differ by 0.25 on average and by 1 at most, which is 1 of \
the largest.

## Images that changed their answer: 1

| image | truth | reference | candidate |
| --- | --- | --- | --- |
| 0000.png | 0 zero | 0 zero | 1 one |

## Images that could not be read

| image | why |
| --- | --- |
| a\\|b.png | &lt;b> damaged |
"""


def test_markdown() -> None:
    skipped = (Skipped(image="a|b.png", reason="<b> damaged"),)

    assert report(skipped=skipped).to_markdown() == MARKDOWN


def test_markdown_without_truth_or_flips() -> None:
    found = metrics(images=2, lost=0, truth=False)
    text = report(metrics=found, verdict=judge(found, min_agreement=99), truth=None).to_markdown()

    assert "No image changed its answer." in text
    assert "no ground truth" in text
    assert "| top-1 | - | - |" in text


def test_markdown_is_of_bounded_length() -> None:
    found = metrics(images=80, lost=60)
    text = report(metrics=found, verdict=judge(found), labels=None).to_markdown()

    assert text.count(".png |") == 50
    assert "The first 50; the JSON report has all." in text
    assert "| 0000.png | 0 | 0 | 1 |" in text


def test_the_ending_chooses_the_form(tmp_path: Path) -> None:
    report().write(tmp_path / "drift.json")
    report().write(tmp_path / "drift.md")

    assert (tmp_path / "drift.json").read_bytes() == report().to_json()
    assert (tmp_path / "drift.md").read_text() == report().to_markdown()


@pytest.mark.parametrize("name", ["drift.html", "drift", "drift.json.txt"])
def test_an_unknown_ending(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"\.json or \.md"):
        report().write(tmp_path / name)

    assert not list(tmp_path.iterdir())
