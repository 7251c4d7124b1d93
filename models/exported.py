"""Reads a ``.pt2`` exported program without running what is in it."""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any, Final

import torch

from ..core.errors import ModelError
from ..core.files import sha256_bytes
from .loaded import LoadedModel

# Of an archive's records only these are read; compiled code (data/aotinductor) is none of them.
_KNOWN: Final = re.compile(
    r"(archive_format|archive_version|byteorder|\.data/\w+|models/model\.json|extra/.+"
    r"|data/sample_inputs/model\.pt|data/(weights|constants)/(\w+_config\.json|(weight|tensor)_\d+))"
)


def load_exported(source: str, path: Path) -> LoadedModel:
    """Return the program's module and its input's shape.

    Raises:
        ModelError: Not an exported program, damaged, with pickled objects or compiled code in it,
            with other inputs or outputs than one, or exported in training mode.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from error
    checked = _repacked(path, data)
    try:
        program = torch.export.load(checked)
    except Exception as error:  # a damaged program can fail anywhere inside the deserialiser
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{path}: not a readable exported program: {reason}") from error
    _check_inference(path, program)
    batch, size = _input(path, program)
    bad = [name for name, value in program.state_dict.items() if not torch.isfinite(value).all()]
    if bad:
        raise ModelError(f"{path}: NaN or infinity in its weights, first in {bad[0]!r}")
    return LoadedModel(
        source=source,
        module=program.module(),
        input_size=size,
        fixed_batch=batch,
        num_classes=_classes(path, program),
        parameters=sum(value.numel() for value in program.parameters()),
        weights_sha256=sha256_bytes(data),
    )


def _repacked(path: Path, data: bytes) -> io.BytesIO:
    """Return the archive with only records that are plain data.

    torch's own reader falls back to unpickling objects, which can run code, where a record asks
    for it. It is given a new archive of what was checked, so that both have read the same.
    """
    checked = io.BytesIO()
    try:
        with (
            zipfile.ZipFile(io.BytesIO(data)) as archive,
            zipfile.ZipFile(checked, "w", zipfile.ZIP_STORED) as copy,
        ):
            if len(set(archive.namelist())) != len(archive.namelist()):
                raise ModelError(f"{path}: the same record twice: not an exported program")
            for info in archive.infolist():
                name = info.filename.partition("/")[2]
                if info.compress_type != zipfile.ZIP_STORED or not _KNOWN.fullmatch(name):
                    raise ModelError(
                        f"{path}: {info.filename!r} is not part of a plain exported program; "
                        "write it with torch.export.save() of torch 2.9 or later"
                    )
                record = archive.read(info)
                _check_record(path, name, record)
                copy.writestr(info.filename, record)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, OSError) as error:
        raise ModelError(f"{path}: not a readable exported program: {error}") from error
    checked.seek(0)
    return checked


def _check_record(path: Path, name: str, record: bytes) -> None:
    if name.endswith("_config.json"):
        try:
            entries = json.loads(record)["config"].values()
            pickled = [e["path_name"] for e in entries if e["use_pickle"]]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{path}: {name}: not a readable table: {error!r}") from error
        if pickled:
            raise ModelError(f"{path}: {name}: holds pickled objects ({pickled[0]}), not tensors")
    elif name.startswith("data/sample_inputs/"):
        try:
            torch.load(io.BytesIO(record), weights_only=True)
        except Exception as error:
            raise ModelError(
                f"{path}: its sample inputs hold more than tensors; loading them would run code"
            ) from error


def _check_inference(path: Path, program: torch.export.ExportedProgram) -> None:
    """Refuse a program that was exported with ``model.train()``: it normalises by each batch."""
    training = {"aten.batch_norm.default": 5, "aten.dropout.default": 2}
    for node in program.graph.nodes:
        index = training.get(str(node.target))
        if index is not None and len(node.args) > index and node.args[index] is True:
            raise ModelError(
                f"{path}: exported in training mode ({node.name}); call model.eval() first"
            )


def _input(
    path: Path, program: torch.export.ExportedProgram
) -> tuple[int | None, tuple[int, int, int]]:
    names = program.graph_signature.user_inputs
    values = [_value(node) for node in program.graph.nodes if node.name in names]
    images = [value for value in values if isinstance(value, torch.Tensor)]
    shape = tuple(images[0].shape) if len(images) == len(values) == 1 else ()
    sizes = [side for side in shape[1:] if isinstance(side, int)]
    if len(shape) != 4 or len(sizes) != 3:
        raise ModelError(
            f"{path}: expected one input (batch, channels, height, width) of fixed size, "
            f"found {len(values)} input(s) {shape or ''}"
        )
    batch = shape[0] if isinstance(shape[0], int) else None
    return batch, (sizes[0], sizes[1], sizes[2])


def _classes(path: Path, program: torch.export.ExportedProgram) -> int | None:
    names = program.graph_signature.user_outputs
    values = [_value(node) for node in program.graph.nodes if node.name in names]
    if len(values) != 1 or not isinstance(values[0], torch.Tensor) or values[0].ndim != 2:
        raise ModelError(f"{path}: expected one output (batch, classes), found {len(names)}")
    classes = values[0].shape[1]
    return classes if isinstance(classes, int) else None


def _value(node: torch.fx.Node) -> Any:
    return node.meta.get("val")
