"""Rounds the weights of a float32 graph to numbers that FP16 represents."""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx
import onnx_ir as ir

from ...core.errors import GraphError
from .to_float16 import FLOAT16_MAX

_COMPUTING: Final = ("Conv", "Gemm", "MatMul")


def round_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph whose convolutions and matrix products have FP16 weights and biases.

    They stay float32 tensors, and computations stay in float32.

    Args:
        model: A float32 graph; not changed.

    Raises:
        GraphError: A weight is beyond FP16's range, or is no number.
    """
    graph_model = ir.from_proto(model)
    constants = {
        value
        for node in graph_model.graph
        if node.op_type in _COMPUTING
        for value in node.inputs
        if value is not None and value.const_value is not None
    }
    for value in constants:
        assert value.const_value is not None
        weights = value.const_value.numpy()
        largest = float(np.abs(weights).max(initial=0.0))
        if not largest <= FLOAT16_MAX:
            raise GraphError(
                f"{value.name!r} holds {largest:g}, beyond FP16's 65504; choose --precision fp32"
            )
        rounded = weights.astype(np.float16).astype(weights.dtype)
        value.const_value = ir.tensor(rounded, name=value.name)
    return ir.to_proto(graph_model)
