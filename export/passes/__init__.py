"""Passes over an ONNX graph, one per file, each with a checked contract; and what they make up."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from .canonical_qdq import CanonicalQdq
from .contract import Pipeline
from .fix_batch import FixBatch
from .fold_batch_norm import FoldBatchNorm
from .fuse_gelu import FuseGelu
from .merge_factors import MergeFactors
from .narrow_weights import NarrowWeights
from .reduce_strength import ReduceStrength
from .round_weights import RoundWeights
from .strip_softmax import Operator, StripSoftmax
from .to_float16 import ToFloat16


def fuse(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a float graph as calibration and all targets want it; the same values to rounding."""
    fusing = Pipeline(FoldBatchNorm(), FuseGelu(), ReduceStrength(), MergeFactors())
    result = fusing(ir.from_proto(model))
    return ir.to_proto(result.model) if result.modified else model


def canonical(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph with Q/DQ in the one form that is read here: see ``CanonicalQdq``."""
    return _run(CanonicalQdq(), model)


def codes_for_arm(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """Return a graph with Q/DQ as int8 kernels of small cores take it, and what it cost.

    Every BatchNormalization is in the scales before it, no weight has the code -128, which
    becomes -127.

    Returns:
        The graph, and how many codes were changed.
    """
    narrow = NarrowWeights()
    return _run(Pipeline(narrow, FoldBatchNorm()), model), narrow.changed


def for_one_image(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph with batch 1 and all that then is constant computed: see ``FixBatch``."""
    return _run(FixBatch(), model)


def in_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a float32 graph in FP16 between its input and its output: see ``ToFloat16``."""
    return _run(ToFloat16(), model)


def with_half_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a float32 graph whose weights FP16 represents: see ``RoundWeights``."""
    return _run(RoundWeights(), model)


def without_softmax(model: onnx.ModelProto) -> tuple[onnx.ModelProto, Operator]:
    """Return a graph that ends at logits, and what was taken off: see ``StripSoftmax``."""
    strip = StripSoftmax()
    return _run(strip, model), strip.operator


def _run(step: ir.passes.PassBase, model: onnx.ModelProto) -> onnx.ModelProto:
    return ir.to_proto(step(ir.from_proto(model)).model)


__all__ = [
    "canonical",
    "codes_for_arm",
    "for_one_image",
    "fuse",
    "in_float16",
    "with_half_weights",
    "without_softmax",
]
