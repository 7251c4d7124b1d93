"""Writes the JSON Schemas of the reports and of bench: python tools/schemas.py [FOLDER]."""

from __future__ import annotations

import sys
from pathlib import Path

from edgecls.core.files import write_atomic
from edgecls.devices.bench import result
from edgecls.reports.schema import schema_of, schemas


def every_schema() -> dict[str, bytes]:
    """Return those of the reports, and of what the device half writes, which no report may know."""
    bench = schema_of(
        result.BenchResult, "edgecls bench", result.SCHEMA_VERSION, sparse=("Reading",)
    )
    return {**schemas(), "bench.schema.json": bench}


def main() -> None:
    """Write each schema into a folder; docs/schemas by default."""
    default = Path(__file__).parent.parent / "docs" / "schemas"
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    for name, data in every_schema().items():
        write_atomic(folder / name, data)


if __name__ == "__main__":
    main()
