"""``edgecls drift --report``: every form, of one candidate and of several sources."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

if TYPE_CHECKING:
    from ..conftest import Command, Digits

IMAGES = 60


def test_every_form_says_the_same(edgecls: Command, digits: Digits, tmp_path: Path) -> None:
    files = [tmp_path / f"drift.{form}" for form in ("json", "md", "xml", "sarif", "html")]
    done = edgecls("drift", digits.bundle("raspberry-pi"), "--reference", digits.bundle("jetson"),
                   "--data", digits.judged, "--images", IMAGES, "--max-drop", 1, "--time", 5,
                   *(argument for file in files for argument in ("--report", file)))  # fmt: skip
    found = json.loads(files[0].read_text())
    case = ET.parse(files[2]).getroot()[0].find("testcase")
    (run,) = json.loads(files[3].read_text())["runs"]
    page = files[4].read_text()

    assert done.code == 5, done.err
    assert "undecided (confidence 95 %)" in done.out, "the table stays"
    assert found["verdict"]["outcome"] == "undecided"
    assert files[1].read_text().startswith("# Drift: undecided")
    assert case is not None
    assert case.find("error") is not None
    assert [result["level"] for result in run["results"]] == ["warning"]
    assert "Undecided</h1>" in page
    assert found["provenance"]["data"] == str(digits.judged)
    assert found["provenance"]["preprocess"]["color"] == "gray"


def test_times_are_measured_on_request(edgecls: Command, digits: Digits) -> None:
    arguments = ["drift", digits.bundle("raspberry-pi"), "--reference", digits.bundle("jetson"),
                 "--data", digits.judged, "--images", IMAGES, "--json"]  # fmt: skip
    plain, timed = (json.loads(edgecls(*arguments, *more).out) for more in ([], ["--time", 5]))

    assert plain.pop("latency") is None
    assert set(latency := timed.pop("latency")) == {"candidate", "reference"}
    assert all(side["images"] == 5 for side in latency.values())
    assert all(0 < side["median_ms"] <= side["p90_ms"] for side in latency.values())
    assert plain == timed, "nothing else changes"


def test_thumbnails_show_the_flipped_images(
    edgecls: Command, digits: Digits, tmp_path: Path
) -> None:
    """Answers that were tampered with in a baseline flip; the candidate gains them."""
    baseline, page = tmp_path / "baseline.json", tmp_path / "drift.html"
    common = ["drift", digits.bundle("raspberry-pi"), "--data", digits.judged, "--images", IMAGES]
    edgecls(*common, "--save-baseline", baseline)
    found = json.loads(baseline.read_text())
    for kept in list(found["images"].values())[:3]:
        kept[2] = (kept[2] + 1) % 10
    baseline.write_text(json.dumps(found))
    done = edgecls(*common, "--baseline", baseline, "--report", page)

    assert done.code == 0, done.err
    assert page.read_text().count("data:image/png;base64,") == 3
    assert page.read_text().count(">gained<") == 4, "three images and a column"


def test_reports_of_several_sources(edgecls: Command, digits: Digits, tmp_path: Path) -> None:
    files = [tmp_path / f"pairs.{form}" for form in ("json", "md", "html")]
    done = edgecls("drift", digits.bundle("raspberry-pi"), digits.bundle("jetson"),
                   digits.bundle("desktop-gpu"), "--allow-fallback", "--data", digits.judged,
                   "--images", IMAGES,
                   *(argument for file in files for argument in ("--report", file)))  # fmt: skip

    assert done.code == 0, done.err
    assert len(json.loads(files[0].read_text())["pairs"]) == 3
    assert f"# Agreement on {IMAGES} images" in files[1].read_text()
    assert files[2].read_text().count("100.00 %") == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{pi}", "--reference", "{pi}", "--report", "drift.pdf"], "found .pdf"),
        (["{pi}", "{pi}", "--report", "pairs.sarif"], "without a verdict"),
        (["{pi}", "{pi}", "--time", "3"], "--time is for one BUNDLE"),
    ],
)
def test_refused_before_any_image_is_run(
    edgecls: Command, digits: Digits, arguments: list[str], said: str
) -> None:
    given = [str(digits.bundle("raspberry-pi")) if a == "{pi}" else a for a in arguments]
    done = edgecls("drift", *given, "--data", digits.judged)

    assert done.code == 2
    assert said in done.err
