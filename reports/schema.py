"""The JSON Schemas of the JSON reports, from the structs that are written."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection
from typing import Any, Final

import msgspec

from ..data import inspection
from ..drift import certificate, evaluation, explanation, matrix, report

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
# Struct and field of what is left out of the files.
_LEFT_OUT: Final = (("Document", "labels"), ("Reliability", "moments"))


def schemas() -> dict[str, bytes]:
    """Return each schema's file by its name; the same every time."""
    return {
        "certificate.schema.json": schema_of(
            certificate.Certificate, "edgecls certify", certificate.SCHEMA_VERSION
        ),
        "drift-explanation.schema.json": schema_of(
            explanation.Explanation, "edgecls drift --explain", explanation.SCHEMA_VERSION
        ),
        "drift-report.schema.json": schema_of(
            report.Document, "edgecls drift report", report.SCHEMA_VERSION
        ),
        "data.schema.json": schema_of(
            inspection.DataReport, "edgecls data", inspection.SCHEMA_VERSION
        ),
        "evaluation.schema.json": schema_of(
            evaluation.Evaluation, "edgecls evaluate", evaluation.SCHEMA_VERSION
        ),
        "drift-matrix.schema.json": schema_of(
            matrix.Matrix, "edgecls drift of several sources", matrix.SCHEMA_VERSION
        ),
    }


def schema_of(
    struct: type[msgspec.Struct], title: str, version: int, *, sparse: Collection[str] = ()
) -> bytes:
    """Return the schema's file of what a struct with a ``schema_version`` is written as.

    Args:
        struct: What is written.
        title: What writes it.
        version: The ``schema_version``.
        sparse: Names of the structs in it that are written without what is a default.
    """
    found: dict[str, Any] = msgspec.json.schema(struct)
    definitions = found["$defs"]
    inherited = "\n".join(inspect.cleandoc(base.__doc__ or "") for base in struct.__mro__[1:-2])
    for name, field in _LEFT_OUT:
        if name in definitions:
            del definitions[name]["properties"][field]
    for definition in definitions.values():
        _describe(definition, inherited if definition["title"] == struct.__name__ else "")
        if "properties" in definition:
            if definition["title"] not in sparse:
                # What has a default is written too.
                definition["required"] = sorted(definition["properties"])
            for value in definition["properties"].values():
                value.pop("default", None)
    definitions[struct.__name__]["properties"]["schema_version"] = {"const": version}
    document = {"$schema": _DIALECT, "title": title, **found}
    return msgspec.json.format(msgspec.json.encode(document, order="sorted"), indent=2) + b"\n"


def _describe(definition: dict[str, Any], inherited: str) -> None:
    """Give each property its part of the struct's docstring."""
    # Python 3.13 takes the indentation away itself.
    text = inspect.cleandoc(definition["description"])
    definition["description"] = " ".join(text.partition("\nAttributes:\n")[0].split())
    for name, meaning in re.findall(
        r"^    (\w+): (.*(?:\n {8}.*)*)", f"{text}\n{inherited}", re.MULTILINE
    ):
        place = definition.get("properties", {}).get(name)
        if place is not None:
            place["description"] = " ".join(meaning.split())
        elif "prefixItems" in definition:
            definition["description"] += f" {name}: {' '.join(meaning.split())}"
