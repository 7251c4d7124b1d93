"""What every model source gives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ..core.preprocess import Preprocess
from .trained import PruningRecord, QuantizationRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A classifier that is ready to export: a torch module or an ONNX graph, never both.

    Attributes:
        source: As it was asked for, e.g. "timm:resnet18".
        module: Computes logits (N, classes) from images (N, C, H, W) float32, on the CPU, in
            evaluation mode. A module from a ``.pt2`` file refuses ``eval()``: do not call it.
        onnx: A serialised, checked graph with its weights inside.
        preprocess: What the model was trained with, where the source says so.
        input_size: (C, H, W), where the source says so.
        fixed_batch: The only batch size that a ``.pt2`` or ``.onnx`` file takes; None where free.
        num_classes: Size of the head, where known.
        parameters: How many numbers were learned; None for ONNX.
        weights_sha256: Hash of the file that the weights came from; None where there is none.
        random_weights: Whether nothing was learned: no weights were given, and none are downloaded.
        labels: Names of its classes in the order of its outputs, where the source says so.
        pruned: How it was made smaller than its architecture; None where it was not.
        quantized: How it was trained to be quantized; None where it was not. ``onnx`` is then the
            float graph.
        simulation: The graph with the codes and scales that were trained.
        table: The file of its ranges.
        notes: What was done with the weights, one sentence each, for the user to read.
    """

    source: str
    module: torch.nn.Module | None = None
    onnx: bytes | None = None
    preprocess: Preprocess | None = None
    input_size: tuple[int, int, int] | None = None
    fixed_batch: int | None = None
    num_classes: int | None = None
    parameters: int | None = None
    weights_sha256: str | None = None
    random_weights: bool = False
    labels: tuple[str, ...] | None = None
    pruned: PruningRecord | None = None
    quantized: QuantizationRecord | None = None
    simulation: bytes | None = None
    table: Path | None = None
    notes: tuple[str, ...] = ()
