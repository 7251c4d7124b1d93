"""The drift check as JUnit XML: one test case per check.

A check that is undecided is an ``error``, not a ``failure``: in JUnit's words a failure is an
assertion that did not hold, an error a test that came to no result. GitLab, Jenkins and the
actions that read these files on GitHub count both as not passed and show them apart; a ``skipped``
would be green.

The form is that of Ant's JUnit task, with the attributes that Jenkins's schema requires.
"""

from __future__ import annotations

from typing import Final
from xml.etree import ElementTree as ET

from ..core.text import printable
from ..core.version import VERSION
from ..drift.gate import Check
from ..drift.report import DriftReport
from ..drift.wording import MEASURES, budget, check_notes, check_row, confidence, sentence

_IMAGES_SHOWN: Final = 100


def to_junit(report: DriftReport) -> bytes:
    """Return the report as JUnit XML, UTF-8."""
    suite = ET.Element(
        "testsuite",
        name=printable(f"edgecls drift: {report.candidate} against {report.reference}"),
    )
    properties = ET.SubElement(suite, "properties")
    for name, value in (
        ("outcome", report.verdict.outcome),
        ("verdict", sentence(report.verdict)),
        ("confidence", f"{report.verdict.confidence:g}"),
        ("looks", str(report.verdict.looks)),
        ("images", str(report.metrics.images)),
        ("edgecls", VERSION),
        *((f"{side} runs on", backend) for side, backend in sorted(report.backends.items())),
    ):
        ET.SubElement(properties, "property", name=name, value=printable(value))
    for check in report.verdict.checks:
        _add_check(suite, report, check)
    _add_images(suite, report)
    counts = {
        "tests": len(suite.findall("testcase")),
        "failures": len(suite.findall("testcase/failure")),
        "errors": len(suite.findall("testcase/error")),
        "skipped": 0,
    }
    root = ET.Element("testsuites", name="edgecls drift")
    for name, count in counts.items():
        suite.set(name, str(count))
        if name != "skipped":
            root.set(name, str(count))
    root.append(suite)
    ET.indent(root)
    found: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return found + b"\n"


def _add_check(suite: ET.Element, report: DriftReport, check: Check) -> None:
    name = f"{MEASURES[check.measure]} {budget(check)}"
    case = _case(suite, report, name)
    what, measured, between, limit, outcome = check_row(check, report.labels)
    text = f"{what}: measured {measured}, true value {between}, budget {limit}"
    notes = check_notes(check, report.metrics.images, report.labels)
    lines = [f"{text}: {outcome} ({confidence(report.verdict)})", *notes]
    body = "\n".join(map(printable, lines))
    if check.outcome == "passed":
        ET.SubElement(case, "system-out").text = body
    else:
        kind = "failure" if check.outcome == "failed" else "error"
        message = printable(f"{check.outcome}: {text}")
        ET.SubElement(case, kind, type=check.outcome, message=message).text = body


def _add_images(suite: ET.Element, report: DriftReport) -> None:
    """A gate that passed without some of the images has not passed on the data that was given."""
    case = _case(suite, report, "every image could be compared")
    skipped = report.skipped
    if skipped:
        lines = [printable(f"{item.image}: {item.reason}") for item in skipped[:_IMAGES_SHOWN]]
        more = len(skipped) - len(lines)
        message = f"{len(skipped)} images could not be compared"
        error = ET.SubElement(case, "error", type="unreadable", message=message)
        error.text = "\n".join([*lines, *([f"and {more} more"] if more else [])])


def _case(suite: ET.Element, report: DriftReport, name: str) -> ET.Element:
    # What stands behind the last dot is a class to Jenkins, what stands before it a package.
    side = printable(report.candidate).replace(".", "_")
    return ET.SubElement(suite, "testcase", classname=f"edgecls.drift.{side}", name=name)
