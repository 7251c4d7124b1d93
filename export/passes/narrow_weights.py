"""Takes the code -128 out of int8 weights.

Int8 kernels of some Arm cores multiply it wrongly (a Cortex-A72 gave -105 instead of 105). But
torch.ao quantizes weights to -128..127, and torch's TorchScript exporter takes no narrower range.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def narrow_weights(model: ir.Model) -> int:
    """Make every weight code of -128 a -127, in place: one step of that channel's scale.

    Args:
        model: Q/DQ as ``canonical_qdq`` leaves it.

    Returns:
        How many codes were changed.
    """
    changed = 0
    for node in model.graph:
        if node.op_type not in _WEIGHTED:
            continue
        value = node.inputs[1]
        producer = value.producer() if value is not None else None
        if producer is None or producer.op_type != "DequantizeLinear":
            continue
        codes = producer.inputs[0]
        if codes is None or codes.const_value is None:
            continue
        array = codes.const_value.numpy()
        if array.dtype != np.int8 or not (array == -128).any():
            continue
        changed += int((array == -128).sum())
        codes.const_value = ir.tensor(np.maximum(array, -127), name=codes.name)
    return changed
