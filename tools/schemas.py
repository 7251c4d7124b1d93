"""Writes the JSON Schemas of the reports: python tools/schemas.py [FOLDER]."""

from __future__ import annotations

import sys
from pathlib import Path

from edgecls.core.files import write_atomic
from edgecls.reports.schema import schemas


def main() -> None:
    """Write each schema into a folder; docs/schemas by default."""
    default = Path(__file__).parent.parent / "docs" / "schemas"
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    for name, data in schemas().items():
        write_atomic(folder / name, data)


if __name__ == "__main__":
    main()
