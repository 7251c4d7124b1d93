"""One lowering per operator, found by its ONNX name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import onnx_ir as ir
from ai_edge_litert.schema_py_generated import BuiltinOperator as Op

from ..lowering import Lowering
from ..quantization import LOGISTIC, TANH
from . import (
    activation,
    conv,
    elementwise,
    joining,
    matmul,
    normalization,
    pool,
    quantize,
    reduce,
    resize,
    shape,
)
from .activation import Unary

LOWERINGS: Final[dict[str, Callable[[Lowering, ir.Node], None]]] = {
    "Abs": partial(activation.unary, kind=Unary(Op.ABS, int8=True)),
    "Add": partial(elementwise.binary, kind=elementwise.ADD),
    "AveragePool": pool.average_pool,
    "BatchNormalization": normalization.batch_normalization,
    "Clip": activation.clip,
    "Concat": joining.concat,
    "Conv": conv.conv,
    "DequantizeLinear": quantize.dequantize,
    "DepthToSpace": resize.depth_to_space,
    "Div": partial(elementwise.binary, kind=elementwise.DIV),
    "Dropout": shape.dropout,
    "DynamicQuantizeLinear": quantize.dynamic_quantize,
    "Elu": activation.elu,
    "Erf": activation.erf,
    "Exp": partial(activation.unary, kind=Unary(Op.EXP, int8=True)),
    "Expand": joining.expand,
    "Flatten": shape.reshape,
    "Floor": partial(activation.unary, kind=Unary(Op.FLOOR)),
    "Gather": joining.gather,
    "Gelu": activation.gelu,
    "Gemm": matmul.gemm,
    "GlobalAveragePool": partial(reduce.global_pool, code=Op.MEAN),
    "GlobalMaxPool": partial(reduce.global_pool, code=Op.REDUCE_MAX),
    "HardSigmoid": activation.hard_sigmoid,
    "HardSwish": partial(activation.unary, kind=Unary(Op.HARD_SWISH, int8=True)),
    "Identity": shape.identity,
    "InstanceNormalization": normalization.instance_normalization,
    "LRN": normalization.local_response,
    "LayerNormalization": normalization.layer_normalization,
    "LeakyRelu": activation.leaky_relu,
    "Log": partial(activation.unary, kind=Unary(Op.LOG, int8=True)),
    "MatMul": matmul.matmul,
    "Max": partial(elementwise.extremum, code=Op.MAXIMUM),
    "MaxPool": pool.max_pool,
    "Mish": activation.mish,
    "Min": partial(elementwise.extremum, code=Op.MINIMUM),
    "Mul": partial(elementwise.binary, kind=elementwise.MUL),
    "Neg": activation.negate,
    "PRelu": activation.prelu,
    "Pad": shape.pad,
    "Pow": partial(elementwise.binary, kind=elementwise.POW),
    "QuantizeLinear": quantize.quantize,
    "Reciprocal": activation.reciprocal,
    "ReduceL2": reduce.l2,
    "ReduceMax": partial(reduce.reduce, code=Op.REDUCE_MAX),
    "ReduceMean": partial(reduce.reduce, code=Op.MEAN),
    "ReduceMin": partial(reduce.reduce, code=Op.REDUCE_MIN),
    "ReduceSum": partial(reduce.reduce, code=Op.SUM),
    "Relu": partial(activation.unary, kind=Unary(Op.RELU, int8=True)),
    "Reshape": shape.reshape,
    "Resize": resize.resize,
    "Sigmoid": partial(activation.unary, kind=Unary(Op.LOGISTIC, int8=True, fixed=LOGISTIC)),
    "Slice": shape.slice_,
    "Softmax": activation.softmax,
    "SpaceToDepth": resize.space_to_depth,
    "Split": joining.split,
    "Sqrt": partial(activation.unary, kind=Unary(Op.SQRT)),
    "Squeeze": shape.reshape,
    "Sub": partial(elementwise.binary, kind=elementwise.SUB),
    "Softplus": activation.softplus,
    "Swish": activation.swish,
    "Tanh": partial(activation.unary, kind=Unary(Op.TANH, int8=True, fixed=TANH)),
    "Transpose": shape.transpose,
    "Unsqueeze": shape.reshape,
}
