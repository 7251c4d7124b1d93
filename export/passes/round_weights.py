"""Rounds the weights of a float32 graph to numbers that FP16 represents."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import PassResult

from ...core.errors import GraphError
from ..nodes import COMPUTING
from .contract import GraphPass
from .to_float16 import FLOAT16_MAX


class RoundWeights(GraphPass):
    """Gives convolutions and matrix products FP16 weights and biases.

    They stay float32 tensors, and computations stay in float32.

    Raises:
        GraphError: A weight is beyond FP16's range, or is no number.
    """

    def call(self, model: ir.Model) -> PassResult:
        """Round each."""
        for value in _weights(model.graph):
            assert value.const_value is not None
            weights = value.const_value.numpy()
            largest = float(np.abs(weights).max(initial=0.0))
            if not largest <= FLOAT16_MAX:
                raise GraphError(
                    f"{value.name!r} holds {largest:g}, beyond FP16's 65504; "
                    "choose --precision fp32"
                )
            rounded = weights.astype(np.float16).astype(weights.dtype)
            value.const_value = ir.tensor(rounded, name=value.name)
        return PassResult(model, modified=True)

    def ensures(self, model: ir.Model) -> None:
        """No weight has more bits than FP16 has."""
        offenders = (f"others in {v.name!r}" for v in _weights(model.graph) if _is_finer(v))
        self.promise("weights of 11 bits", offenders)


def _weights(graph: ir.Graph) -> set[ir.Value]:
    return {
        value
        for node in graph
        if node.op_type in COMPUTING
        for value in node.inputs
        if value is not None and value.const_value is not None
    }


def _is_finer(value: ir.Value) -> bool:
    """Say whether a float32 uses bits of its fraction beyond the ten that FP16 has."""
    tensor = value.const_value
    if tensor is None or tensor.dtype != ir.DataType.FLOAT:
        return False
    bits = np.ascontiguousarray(tensor.numpy()).view(np.uint32)
    return bool(np.bitwise_or.reduce(bits, axis=None) & ((1 << 13) - 1))
