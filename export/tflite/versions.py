"""The lowest version of each TFLite operator that has the form used.

Source: LiteRT, tflite/tools/versioning/op_version.cc. An old runtime refuses a version that it
does not know, so a version that is too high shuts out devices for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from ai_edge_litert.schema_py_generated import BuiltinOperator as Op

from .quantization import Quant

if TYPE_CHECKING:
    from .writer import Tensor

_INT8: Final = {
    Op.CONV_2D: 3, Op.DEPTHWISE_CONV_2D: 3, Op.FULLY_CONNECTED: 4, Op.MAX_POOL_2D: 2,
    Op.AVERAGE_POOL_2D: 2, Op.TRANSPOSE: 2, Op.SPLIT: 2, Op.SPLIT_V: 2, Op.SLICE: 2,
    Op.STRIDED_SLICE: 2, Op.DEQUANTIZE: 2, Op.RELU: 2, Op.RELU6: 2, Op.RESIZE_BILINEAR: 2,
    Op.RESIZE_NEAREST_NEIGHBOR: 2, Op.ADD: 2, Op.SUB: 2, Op.MUL: 2,
    Op.TANH: 2, Op.LOGISTIC: 2, Op.SOFTMAX: 2, Op.MEAN: 2, Op.REDUCE_MAX: 2, Op.REDUCE_MIN: 2,
    Op.PAD: 2, Op.PADV2: 2, Op.CONCATENATION: 2, Op.GATHER: 2, Op.BATCH_MATMUL: 2,
    Op.SUM: 2, Op.DEPTH_TO_SPACE: 2, Op.SPACE_TO_DEPTH: 2, Op.GELU: 2,
    Op.ABS: 2, Op.EXP: 2, Op.LOG: 2, Op.BROADCAST_TO: 3, Op.MAXIMUM: 2, Op.MINIMUM: 2,
}  # fmt: skip

# Also the list of the operators whose kernel for int16 activations is right to three steps. Not so
# EXP, LOG and GELU, which interpolate a table (off by up to 500 steps), and SOFTMAX, whose
# exponential ends at e^-10: each of the other values of a row adds two steps to its sum.
_INT16: Final = {
    Op.CONV_2D: 4, Op.DEPTHWISE_CONV_2D: 5, Op.FULLY_CONNECTED: 7, Op.MAX_POOL_2D: 3,
    Op.AVERAGE_POOL_2D: 3, Op.TRANSPOSE: 5, Op.RESHAPE: 1, Op.SPLIT: 4, Op.SPLIT_V: 2, Op.SLICE: 4,
    Op.STRIDED_SLICE: 2, Op.QUANTIZE: 2, Op.DEQUANTIZE: 3, Op.RELU: 3, Op.RELU6: 3,
    Op.RESIZE_BILINEAR: 4, Op.RESIZE_NEAREST_NEIGHBOR: 4, Op.ADD: 3, Op.SUB: 5, Op.MUL: 4,
    Op.TANH: 3, Op.LOGISTIC: 3, Op.MEAN: 3, Op.REDUCE_MAX: 3, Op.REDUCE_MIN: 3, Op.PAD: 3,
    Op.PADV2: 3, Op.CONCATENATION: 3, Op.GATHER: 4, Op.BATCH_MATMUL: 3, Op.SUM: 2,
    Op.LEAKY_RELU: 2, Op.ABS: 3, Op.BROADCAST_TO: 3,
}  # fmt: skip

_FLOAT: Final = {Op.BROADCAST_TO: 2}

# Float activations, int8 weights with a scale for each channel.
_HYBRID: Final = {Op.CONV_2D: 5, Op.DEPTHWISE_CONV_2D: 6, Op.FULLY_CONNECTED: 12}

# The data of SPLIT stands behind its axis.
_DATA: Final = {Op.SPLIT: 1}


def has_kernel(code: int, *tensors: Quant | None) -> bool:
    """Say whether an operator computes on codes of these parameters, which must be of one width.

    That it has an int8 kernel is for its lowering to know.
    """
    widths = {None if quant is None else quant.bits for quant in tensors}
    return widths == {8} or (widths == {16} and code in _INT16)


def operator_version(
    code: int, inputs: Sequence[Tensor], outputs: Sequence[Tensor], options: Any
) -> int:
    """Return the operator's version for these tensors and options."""
    data = inputs[_DATA.get(code, 0)]
    dtype = outputs[0].dtype if code == Op.QUANTIZE else data.dtype
    int8 = dtype == np.int8
    rank = max(len(tensor.shape) for tensor in inputs)
    broadcast = len({tensor.shape for tensor in inputs[:2]}) > 1
    assert dtype != np.int16 or code in _INT16, f"operator {code} has no int16 kernel"
    versions = _INT8 if int8 else _INT16 if dtype == np.int16 else _FLOAT
    candidates = [versions.get(code, 1)]
    if code in _HYBRID and data.dtype == np.float32 and inputs[1].dtype == np.int8:
        candidates.append(_HYBRID[code])
    if code == Op.DEQUANTIZE and data.dtype == np.float16:
        candidates.append(3)
    elif code == Op.DEQUANTIZE and not isinstance(data.quant, Quant):
        candidates.append(5)
    elif code == Op.CONV_2D and inputs[1].shape[3] != data.shape[3]:
        candidates.append(6)
    elif code == Op.DEPTHWISE_CONV_2D and max(options.dilationHFactor, options.dilationWFactor) > 1:
        candidates.append(2)
    elif code == Op.FULLY_CONNECTED and options.keepNumDims:
        candidates.append(5)
    elif code == Op.MUL and int8:
        product = inputs[0].quant.scale * inputs[1].quant.scale  # type: ignore[union-attr]
        candidates.append(3 if product >= outputs[0].quant.scale else 2)  # type: ignore[union-attr]
    elif code == Op.TRANSPOSE and rank > 4:
        candidates.append(4 if rank == 5 else 6)
    elif code in (Op.PAD, Op.PADV2, Op.STRIDED_SLICE) and len(data.shape) > 4:
        candidates.append(4)
    elif code == Op.SLICE and len(data.shape) > 4:
        candidates.append(5)
    elif code in (Op.SUB, Op.MAXIMUM, Op.MINIMUM) and broadcast and rank > 4:
        candidates.append(3)
    elif code == Op.DIV and broadcast and rank > 4:
        candidates.append(2)
    elif code in (Op.RESIZE_BILINEAR, Op.RESIZE_NEAREST_NEIGHBOR) and (
        options.halfPixelCenters or (options.alignCorners and code == Op.RESIZE_NEAREST_NEIGHBOR)
    ):
        candidates.append(3)
    return max(candidates)
