"""Reading and writing calibration tables: JSON, one line per field and per tensor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from ..core.errors import CalibrationError
from ..core.files import write_atomic
from .table import FORMAT, VERSION, CalibrationTable


def write_table(path: Path, table: CalibrationTable) -> None:
    """Write a table whole or not at all."""
    fields: dict[str, Any] = {
        name: getattr(table, name) for name in ("format", "version", *table.__struct_fields__)
    }
    tensors = fields.pop("tensors")
    if not table.learned:
        del fields["learned"]
    lines = [f" {_json(name)}: {_json(value)}," for name, value in fields.items()]
    records = [f"  {_json(name)}: {_json(record)}" for name, record in tensors.items()]
    text = "\n".join(["{", *lines, ' "tensors": {', ",\n".join(records), " }", "}"])
    write_atomic(path, f"{text}\n".encode())


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def read_table(path: Path) -> CalibrationTable:
    """Read a table.

    Raises:
        CalibrationError: No table, a damaged one, or one of another version.
    """
    try:
        data = path.read_bytes()
        data.decode()
        head = msgspec.json.decode(data, type=_Head)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CalibrationError(f"{path}: not a calibration table: {error}") from error
    if head.format != FORMAT:
        raise CalibrationError(
            f"{path}: not a calibration table; make one: "
            "edgecls calibrate MODEL --data DIR -o TABLE"
        )
    if head.version != VERSION:
        raise CalibrationError(
            f"{path}: expected a table of version {VERSION}, found {head.version}; calibrate again"
        )
    try:
        table = msgspec.json.decode(data, type=CalibrationTable)
        table.check_whole()
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise CalibrationError(f"{path}: damaged calibration table: {error}") from error
    return table


class _Head(msgspec.Struct):
    format: str = ""
    version: int = 0
