"""The published JSON Schemas: up to date, met by what is written, and not met by anything else."""

from __future__ import annotations

import copy
import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from edgecls.drift import Budgets, DriftReport, compare, judge
from edgecls.drift.explanation import Explanation
from edgecls.drift.matrix import Matrix

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "schemas"

Make = Callable[..., DriftReport]


def validator(name: str) -> jsonschema.Draft202012Validator:
    schema = json.loads((FOLDER / f"{name}.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_published_schemas_are_up_to_date() -> None:
    published = {file.name: file.read_bytes() for file in FOLDER.iterdir()}
    written = runpy.run_path(str(ROOT / "tools" / "schemas.py"))["every_schema"]()

    assert published == written, "run: python tools/schemas.py"


def plain(make: Make) -> DriftReport:
    return make()


def without_truth_or_extras(make: Make) -> DriftReport:
    return make(truth=False, provenance=None, latency=None, labels=None)


def every_check(make: Make) -> DriftReport:
    budgets = Budgets(max_drop=1, max_top5_drop=1, max_class_drop=10, max_ece_rise=2,
                      min_agreement=97)  # fmt: skip
    return make(budgets=budgets)


def classes_with_too_few_images(make: Make) -> DriftReport:
    return make(images=20, budgets=Budgets(max_class_drop=10))


@pytest.mark.parametrize(
    "case", [plain, without_truth_or_extras, every_check, classes_with_too_few_images]
)
def test_written_reports_are_valid(make: Make, case: Callable[[Make], DriftReport]) -> None:
    found = json.loads(case(make).to_json())

    validator("drift-report").validate(found)


def test_a_reference_of_zeros_is_valid(make: Make) -> None:
    zeros, ones = np.zeros((1, 2), np.float32), np.asarray([[0, 1]], np.float32)
    metrics = compare(["a"], zeros, ones)
    report = make(metrics=metrics, verdict=judge(metrics, Budgets(min_agreement=90)))
    found = json.loads(report.to_json())

    validator("drift-report").validate(found)
    assert found["metrics"]["differences"]["relative"] is None


def test_a_matrix_is_valid(matrix: Matrix) -> None:
    validator("drift-matrix").validate(json.loads(matrix.to_json()))


def test_an_explanation_is_valid(explanation: Explanation) -> None:
    validator("drift-explanation").validate(json.loads(explanation.to_json()))


def places(found: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the way to every key of every object."""
    here: list[tuple[Any, ...]] = []
    if isinstance(found, dict):
        for key, value in found.items():
            here += [(*path, key), *places(value, (*path, key))]
    elif isinstance(found, list):
        for index, value in enumerate(found[:1]):
            here += places(value, (*path, index))
    return here


def test_every_field_is_required_and_no_other_is_allowed(make: Make) -> None:
    check, found = validator("drift-report"), json.loads(make(images=60).to_json())
    # Keys of these are data: sides and quantiles.
    free = {"backends", "latency", "logit_difference", "probability_difference"}

    for path in places(found):
        if free & set(path[:-1]) and path[-1] not in {"images", "median_ms", "p90_ms"}:
            continue
        damaged = copy.deepcopy(found)
        place = damaged
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]
        assert not check.is_valid(damaged), f"without {path}"
        place["renamed"] = 1
        assert not check.is_valid(damaged), f"with another {path}"


@pytest.mark.parametrize(
    ("field", "value"), [("reference", 1), ("schema_version", 2), ("truth", False), ("verdict", {})]
)
def test_wrong_values_are_not_valid(make: Make, field: str, value: object) -> None:
    found = json.loads(plain(make).to_json())

    assert not validator("drift-report").is_valid({**found, field: value})
