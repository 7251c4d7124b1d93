"""The drift check as SARIF 2.1.0, for code scanning: a result for each check that did not pass.

An undecided check is a warning. SARIF's own kind "open" would say it better, but demands the level
"none", which code scanning does not show.

Source: Static Analysis Results Interchange Format (SARIF) Version 2.1.0, OASIS Standard, 2020.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from ..core.files import sha256_bytes
from ..core.text import printable
from ..core.version import VERSION
from ..drift.budgets import Measure
from ..drift.gate import Check
from ..drift.report import DriftReport
from ..drift.wording import check_notes, check_row, confidence

_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"
_IMAGES_SHOWN: Final = 10
_UNREAD: Final = "unread-images"
# Each rule's id, short description, and what to do.
_RULES: Final[dict[Measure, tuple[str, str]]] = {
    "top1_drop": (
        "The conversion loses more top-1 accuracy than its budget allows.",
        "Look at the images that changed their answer, and at the layers that depart first. More "
        "or other calibration images, another calibration method, or keeping single layers in "
        "float usually win the accuracy back; --max-drop is the budget.",
    ),
    "top5_drop": (
        "The conversion loses more top-5 accuracy than its budget allows.",
        "As for top-1; --max-top5-drop is the budget.",
    ),
    "agreement": (
        "The conversion answers otherwise than its reference more often than its budget allows.",
        "Answers that change without getting worse are often near a tie; --min-agreement is the "
        "budget.",
    ),
    "class_drop": (
        "The conversion loses more accuracy in one class than its budget allows.",
        "Look at the class's row of the confusion matrix; images of the class may be missing from "
        "the calibration. --max-class-drop is the budget.",
    ),
    "ece_rise": (
        "The conversion's confidence is further from its accuracy than its budget allows.",
        "Scores are no longer probabilities: a threshold on them must be chosen anew; "
        "--max-ece-rise is the budget.",
    ),
}
_UNREAD_RULE: Final = (
    "Images that were given could not be compared.",
    "Repair or remove the files that the message names: the verdict does not speak of them.",
)
_UNDECIDED: Final = (
    "An undecided check needs more images; its message says how many. docs/verdict.md explains "
    "the verdict."
)


def to_sarif(report: DriftReport) -> bytes:
    """Return the report as SARIF, indented, ending with a newline; the same every time."""
    texts = {_rule_id(measure): rule for measure, rule in _RULES.items()}
    texts[_UNREAD] = _UNREAD_RULE
    results = [
        _of_check(report, check) for check in report.verdict.checks if check.outcome != "passed"
    ]
    if report.skipped:
        results.append(_of_images(report))
    places = list(texts)
    for result in results:
        result["ruleIndex"] = places.index(result["ruleId"])
    run = {
        "tool": {
            "driver": {
                "name": "edgecls",
                "version": VERSION,
                "rules": [_rule(name, *text) for name, text in texts.items()],
            }
        },
        "automationDetails": {"id": f"edgecls-drift/{printable(report.candidate)}/"},
        "invocations": [{"executionSuccessful": True, "exitCode": report.exit_code}],
        "results": results,
    }
    document = {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(document, indent=2, ensure_ascii=True).encode() + b"\n"


def _rule_id(measure: Measure) -> str:
    return measure.replace("_", "-")


def _rule(name: str, short: str, fix: str) -> dict[str, Any]:
    text = fix if name == _UNREAD else f"{fix} {_UNDECIDED}"
    return {
        "id": name,
        "shortDescription": {"text": short},
        "fullDescription": {"text": short},
        "help": {"text": text, "markdown": text},
        "defaultConfiguration": {"level": "error"},
        "properties": {"tags": ["drift", "accuracy"]},
    }


def _of_check(report: DriftReport, check: Check) -> dict[str, Any]:
    name, measured, between, limit, outcome = check_row(check, report.labels)
    notes = check_notes(check, report.metrics.images, report.labels)
    text = (
        f"{name} of {report.candidate} against {report.reference} is {outcome}: measured "
        f"{measured}, true value {between}, budget {limit} ({confidence(report.verdict)}, "
        f"{report.metrics.images} images)."
    )
    level = "error" if check.outcome == "failed" else "warning"
    return _result(report, _rule_id(check.measure), level, [text, *(f"{n}." for n in notes)])


def _of_images(report: DriftReport) -> dict[str, Any]:
    shown = [f"{item.image}: {item.reason}." for item in report.skipped[:_IMAGES_SHOWN]]
    text = f"{len(report.skipped)} images could not be compared, e.g."
    return _result(report, _UNREAD, "error", [text, *shown])


def _result(report: DriftReport, rule: str, level: str, lines: list[str]) -> dict[str, Any]:
    # The alert of a check stays the same one from run to run, whatever its numbers.
    identity = sha256_bytes(f"{rule}\n{printable(report.candidate)}".encode())
    return {
        "ruleId": rule,
        "level": level,
        "message": {"text": " ".join(map(printable, lines))},
        # Code scanning shows no result without a place.
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": _uri(report.candidate)},
                    "region": {"startLine": 1},
                }
            }
        ],
        "partialFingerprints": {"edgeclsCheck/v1": identity},
    }


def _uri(name: str) -> str:
    """Return a path as a URI; a relative one stays relative, to the folder of the run."""
    path = Path(name)
    text = quote(path.as_posix().encode("utf-8", "surrogateescape"), safe="/")
    return f"file://{text}" if path.is_absolute() else text
