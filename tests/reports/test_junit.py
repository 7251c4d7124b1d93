"""JUnit XML: its structure, and what a CI system counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from xml.etree import ElementTree as ET

import pytest

from edgecls.drift import Budgets, DriftReport, Skipped
from edgecls.reports.junit import to_junit

Make = Callable[..., DriftReport]

# Of each element: the attributes that it must have, those that it may have, and its children in
# order with how often they may stand: Jenkins's junit-10.xsd, as far as we use it.
STRUCTURE: Final[dict[str, tuple[set[str], set[str], dict[str, tuple[int, int]]]]] = {
    "testsuites": (set(), {"name", "time", "tests", "failures", "errors"},
                   {"testsuite": (0, 1000)}),
    "testsuite": ({"name", "tests"}, {"failures", "errors", "skipped", "time", "timestamp"},
                  {"properties": (0, 1), "testcase": (0, 1000)}),
    "properties": (set(), set(), {"property": (0, 1000)}),
    "property": ({"name", "value"}, set(), {}),
    "testcase": ({"name", "classname"}, {"time"},
                 {"skipped": (0, 1), "error": (0, 1), "failure": (0, 1), "system-out": (0, 1)}),
    "failure": ({"type", "message"}, set(), {}),
    "error": ({"type", "message"}, set(), {}),
    "system-out": (set(), set(), {}),
}  # fmt: skip


def check_structure(element: ET.Element) -> None:
    required, optional, children = STRUCTURE[element.tag]

    assert required <= set(element.attrib) <= required | optional, element.tag
    found = [child.tag for child in element]
    assert found == sorted(found, key=list(children).index), f"the order in {element.tag}"
    for tag, (least, most) in children.items():
        assert least <= found.count(tag) <= most, f"{tag} in {element.tag}"
    for child in element:
        check_structure(child)


def parsed(report: DriftReport) -> ET.Element:
    root = ET.fromstring(to_junit(report))
    check_structure(root)
    return root


BUDGETS = Budgets(max_drop=1, max_top5_drop=5, min_agreement=95, max_ece_rise=50)


def test_a_case_for_each_check(make: Make) -> None:
    report = make(images=1000, lost=0.04, budgets=BUDGETS)
    outcomes = {check.measure: check.outcome for check in report.verdict.checks}
    root = parsed(report)
    cases = {case.get("name"): [child.tag for child in case] for case in root.iter("testcase")}

    assert set(outcomes.values()) == {"passed", "failed", "undecided"}, "one of each is shown here"
    assert outcomes["top1_drop"] == "failed"
    assert outcomes["agreement"] == "undecided"
    assert cases == {
        "top-1 drop <= 1 points": ["failure"],
        "top-5 drop <= 5 points": ["system-out"],
        "rise of the ECE <= 50 points": ["system-out"],
        "top-1 agreement >= 95 %": ["error"],
        "every image could be compared": [],
    }


def test_counts_are_those_of_the_cases(make: Make) -> None:
    root = parsed(make(images=1000, lost=0.04, budgets=BUDGETS))
    suite = root[0]

    assert [suite.get(key) for key in ("tests", "failures", "errors")] == ["5", "1", "1"]
    assert [root.get(key) for key in ("tests", "failures", "errors")] == ["5", "1", "1"]


def test_undecided_says_how_many_images_would_do(make: Make) -> None:
    report = make(images=1000, lost=0.04, budgets=BUDGETS)
    (error,) = parsed(report).iter("error")
    needed = report.verdict.checks[-1].images_needed

    assert error.get("type") == "undecided"
    assert needed is not None
    assert f"about {needed:,} images would decide it" in str(error.text)


def test_a_passed_gate_without_some_images_is_not_green(make: Make) -> None:
    skipped = tuple(Skipped(image=f"{index}.jpg", reason="truncated") for index in range(150))
    report = make(lost=0, budgets=Budgets(max_drop=5), skipped=skipped)
    (error,) = parsed(report).iter("error")

    assert (report.verdict.outcome, report.exit_code) == ("passed", 4)
    assert error.get("message") == "150 images could not be compared"
    assert str(error.text).splitlines()[-1] == "and 50 more"


def test_hostile_names_stay_text(hostile: DriftReport) -> None:
    root = parsed(hostile)
    every = " ".join([*root.itertext(), *(v for e in root.iter() for v in e.attrib.values())])

    assert "<script>alert(1)</script>" in every
    assert not {"\x00", "\x1b", "\u202e"} & set(every)


def test_the_class_has_one_dot_for_jenkins(make: Make) -> None:
    (case, *_) = parsed(make(candidate="models/v1.2.pt2")).iter("testcase")

    assert case.get("classname") == "edgecls.drift.models/v1_2_pt2"


@pytest.mark.parametrize("damage", ["unknown", "missing", "order"])
def test_the_structural_check_can_fail(make: Make, damage: str) -> None:
    root = parsed(make())
    if damage == "unknown":
        root[0].set("surprise", "1")
    elif damage == "missing":
        del root[0][1].attrib["classname"]
    else:
        root[0].append(root[0][0])

    with pytest.raises(AssertionError):
        check_structure(root)
