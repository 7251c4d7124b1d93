"""The folder that ``edgecls train`` writes, as a source of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

from ..core.errors import ModelError
from ..core.preprocess import Preprocess
from ..core.values import QuantScheme

RECORD: Final = "train.json"
WEIGHTS: Final = "model.safetensors"
GRAPH: Final = "model.onnx"
SIMULATION: Final = "simulation.onnx"
TABLE: Final = "table.json"
SCHEMA_VERSION: Final = 1


class DataRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What was learned from, or judged on.

    Attributes:
        name: As the user called it.
        images: How many.
        sha256: Of the images' hashes and labels.
    """

    name: str
    images: int
    sha256: str


class PruningRecord(msgspec.Struct, frozen=True, kw_only=True):
    """How a model was made smaller than its architecture.

    Attributes:
        method: As ``edgecls prune`` calls it.
        importance: Likewise.
        goal: Likewise.
        steps: Likewise.
        widths: Sizes of the tensors that are smaller; None on an axis that is the architecture's.
        zeros: Whether weights that are zero stay so where the model is trained on.
    """

    method: str
    importance: str
    goal: str
    steps: int
    widths: dict[str, tuple[int | None, ...]]
    zeros: bool


class QuantizationRecord(msgspec.Struct, frozen=True, kw_only=True):
    """How a model was trained to be quantized: it is the graph in ``model.onnx``.

    Attributes:
        target: Whose scheme it was trained with.
        scheme: That one.
        points: How many scales of activations were learned.
    """

    target: str
    scheme: QuantScheme
    points: int


class TrainingRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Where trained weights come from, and what export needs beside them.

    Attributes:
        architecture: What ``load_model`` takes.
        labels: Class names in the order of the outputs.
        preprocess: What the images went through.
        parameters: How many numbers the model has.
        config: How it was trained, as ``edgecls train`` calls its options.
        initial_weights_sha256: Of the checkpoint that it started from; None for random weights.
        train: What it learned from.
        val: What chose the best epoch; None where the last one is kept.
        processes: How many trained together.
        tools: Versions.
        epochs: How many are done.
        best_epoch: Whose weights these are, from 1; 0 before the first.
        best_top1: On ``val``, in percent.
        pruned: How it was made smaller than its architecture; None where it was not.
        quantized: How it was trained to be quantized; None where it was not.
        schema_version: Of this file.
    """

    architecture: str
    labels: tuple[str, ...]
    preprocess: Preprocess
    parameters: int
    config: dict[str, Any]
    initial_weights_sha256: str | None
    train: DataRecord
    val: DataRecord | None
    processes: int
    tools: dict[str, str]
    epochs: int = 0
    best_epoch: int = 0
    best_top1: float | None = None
    pruned: PruningRecord | None = None
    quantized: QuantizationRecord | None = None
    schema_version: int = SCHEMA_VERSION


def is_trained(folder: Path) -> bool:
    """Return whether a folder holds a trained model."""
    return (folder / RECORD).is_file()


def brings_table(folder: Path) -> bool:
    """Return whether a folder holds a model with the ranges that it was trained with."""
    return is_trained(folder) and read_record(folder).quantized is not None


def read_record(folder: Path) -> TrainingRecord:
    """Return what a folder of ``edgecls train`` says about its model.

    Raises:
        ModelError: Not such a folder, damaged, or of another version.
    """
    file = folder / RECORD
    try:
        record = msgspec.json.decode(file.read_bytes(), type=TrainingRecord)
    except (OSError, msgspec.DecodeError, ValueError) as error:
        raise ModelError(f"{file}: not a readable record of a training: {error}") from error
    if record.schema_version != SCHEMA_VERSION:
        raise ModelError(
            f"{file}: expected schema version {SCHEMA_VERSION}, found {record.schema_version}; "
            "it was written by another edgecls"
        )
    return record


def write_record(record: TrainingRecord) -> bytes:
    """Return the file's content."""
    return msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"
