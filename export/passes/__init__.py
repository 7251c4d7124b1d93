"""Passes over an ONNX graph, one per file."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from .canonical_qdq import canonical_qdq
from .fix_batch import fix_batch
from .fold_batch_norm import fold_batch_norm
from .fuse_gelu import fuse_gelu
from .merge_factors import merge_factors
from .narrow_weights import narrow_weights
from .reduce_strength import reduce_strength


def fuse(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a float graph as calibration and all targets want it; the same values to rounding."""
    graph = ir.from_proto(model)
    changed = fold_batch_norm(graph) + fuse_gelu(graph) + reduce_strength(graph)
    changed += merge_factors(graph)
    return ir.to_proto(graph) if changed else model


def canonical(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph with Q/DQ in the one form that is read here: see ``canonical_qdq``."""
    return ir.to_proto(canonical_qdq(ir.from_proto(model)))


def codes_for_arm(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """Return a graph with Q/DQ as int8 kernels of small cores take it, and what it cost.

    Every BatchNormalization is in the scales before it, no weight has the code -128, which
    becomes -127.

    Returns:
        The graph, and how many codes were changed.
    """
    graph = ir.from_proto(model)
    changed = narrow_weights(graph)
    fold_batch_norm(graph)
    return ir.to_proto(graph), changed


def for_one_image(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph with batch 1 and all that then is constant computed: see ``fix_batch``."""
    return ir.to_proto(fix_batch(ir.from_proto(model)))


__all__ = ["canonical", "codes_for_arm", "for_one_image", "fuse"]
