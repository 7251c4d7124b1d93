"""SARIF 2.1.0: the structure that the standard and code scanning ask for."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import jsonschema
import pytest

from edgecls.drift import Budgets, DriftReport, Skipped
from edgecls.reports.sarif import to_sarif

Make = Callable[..., DriftReport]


def closed(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return an object's schema; the standard's objects take no other properties."""
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **(optional or {})},
        "additionalProperties": False,
    }


TEXT: Final = {"type": "string", "minLength": 1}
MESSAGE: Final = closed({"text": TEXT}, {"markdown": TEXT})
# Sections 3.13 (sarifLog), 3.14 (run), 3.19 (toolComponent), 3.20 (invocation), 3.27 (result),
# 3.29 (physicalLocation), 3.49 (reportingDescriptor) of the standard, as far as we write them, and
# what code scanning requires beyond it: a place, a level, help.
SCHEMA: Final = closed(
    {
        "$schema": {"type": "string", "format": "uri"},
        "version": {"const": "2.1.0"},
        "runs": {
            "type": "array",
            "minItems": 1,
            "items": closed(
                {
                    "tool": closed(
                        {
                            "driver": closed(
                                {
                                    "name": TEXT,
                                    "version": TEXT,
                                    "rules": {
                                        "type": "array",
                                        "uniqueItems": True,
                                        "items": closed(
                                            {
                                                "id": TEXT,
                                                "shortDescription": MESSAGE,
                                                "fullDescription": MESSAGE,
                                                "help": MESSAGE,
                                            },
                                            {
                                                "defaultConfiguration": closed(
                                                    {"level": {"enum": ["warning", "error"]}}
                                                ),
                                                "properties": {"type": "object"},
                                            },
                                        ),
                                    },
                                }
                            )
                        }
                    ),
                    "invocations": {
                        "type": "array",
                        "items": closed(
                            {"executionSuccessful": {"type": "boolean"}},
                            {"exitCode": {"type": "integer"}},
                        ),
                    },
                    "results": {
                        "type": "array",
                        "items": closed(
                            {
                                "ruleId": TEXT,
                                "ruleIndex": {"type": "integer", "minimum": 0},
                                "level": {"enum": ["none", "note", "warning", "error"]},
                                "message": MESSAGE,
                                "locations": {
                                    "type": "array",
                                    "minItems": 1,
                                    "items": closed(
                                        {
                                            "physicalLocation": closed(
                                                {
                                                    "artifactLocation": closed(
                                                        {
                                                            "uri": {
                                                                "type": "string",
                                                                "pattern": r"^[\w/.%~:-]+$",
                                                            }
                                                        }
                                                    ),
                                                    "region": closed(
                                                        {
                                                            "startLine": {
                                                                "type": "integer",
                                                                "minimum": 1,
                                                            }
                                                        }
                                                    ),
                                                }
                                            )
                                        }
                                    ),
                                },
                                "partialFingerprints": {
                                    "type": "object",
                                    "additionalProperties": TEXT,
                                },
                            }
                        ),
                    },
                },
                {"automationDetails": closed({"id": TEXT})},
            ),
        },
    }
)


def parsed(report: DriftReport) -> dict[str, Any]:
    found = json.loads(to_sarif(report))
    jsonschema.Draft202012Validator(SCHEMA).validate(found)
    (run,) = found["runs"]
    rules = run["tool"]["driver"]["rules"]
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
    assert isinstance(run, dict)
    return run


def test_a_result_for_each_check_that_did_not_pass(make: Make) -> None:
    budgets = Budgets(max_drop=1, max_top5_drop=5, min_agreement=95)
    run = parsed(make(images=1000, lost=0.04, budgets=budgets))

    assert [(result["ruleId"], result["level"]) for result in run["results"]] == [
        ("top1-drop", "error"), ("agreement", "warning"),
    ]  # fmt: skip
    assert run["invocations"] == [{"executionSuccessful": True, "exitCode": 1}]
    assert "budget <= 1 points (confidence 95 %" in run["results"][0]["message"]["text"]
    assert "images would decide it" in run["results"][1]["message"]["text"]


def test_a_passed_gate_has_no_result(make: Make) -> None:
    assert parsed(make(lost=0, budgets=Budgets(max_drop=5)))["results"] == []


def test_images_that_could_not_be_read(make: Make) -> None:
    skipped = (Skipped(image="a.jpg", reason="truncated"),)
    run = parsed(make(lost=0, budgets=Budgets(max_drop=5), skipped=skipped))
    (result,) = run["results"]

    assert result["ruleId"] == "unread-images"
    assert "a.jpg: truncated" in result["message"]["text"]
    assert run["invocations"][0]["exitCode"] == 4


def test_an_alert_is_the_same_from_run_to_run(make: Make) -> None:
    first, second = (parsed(make(lost=lost))["results"][0] for lost in (0.05, 0.07))

    assert first["message"] != second["message"]
    assert first["partialFingerprints"] == second["partialFingerprints"]
    assert (
        parsed(make(candidate="out/jetson"))["results"][0]["partialFingerprints"]
        != first["partialFingerprints"]
    )


@pytest.mark.parametrize(
    ("candidate", "uri"),
    [
        ("out/raspberry-pi", "out/raspberry-pi"),
        ("/srv/a b.logits", "file:///srv/a%20b.logits"),
        ("my.models:build", "my.models%3Abuild"),
        ("caf\udce9.logits", "caf%E9.logits"),
    ],
)
def test_places_are_uris(make: Make, candidate: str, uri: str) -> None:
    result = parsed(make(candidate=candidate))["results"][0]

    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == uri


def test_hostile_names_stay_text(hostile: DriftReport) -> None:
    text = to_sarif(hostile).decode("ascii")
    parsed(hostile)

    assert "\\u001b" not in text
    assert "\\u0000" not in text
    assert "\\u202e" in text.replace("\\\\u202e", "\\u202e"), "escaped for those who read it"
