"""Passes over an ONNX graph, one per file."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from .fix_batch import fix_batch
from .fold_batch_norm import fold_batch_norm
from .fuse_gelu import fuse_gelu
from .merge_factors import merge_factors
from .reduce_strength import reduce_strength


def fuse(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a float graph as calibration and all targets want it; the same values to rounding."""
    graph = ir.from_proto(model)
    changed = fold_batch_norm(graph) + fuse_gelu(graph) + reduce_strength(graph)
    changed += merge_factors(graph)
    return ir.to_proto(graph) if changed else model


def for_one_image(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph with batch 1 and all that then is constant computed: see ``fix_batch``."""
    return ir.to_proto(fix_batch(ir.from_proto(model)))


__all__ = ["for_one_image", "fuse"]
