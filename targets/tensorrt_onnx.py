"""What TensorRT's ONNX parser takes, by version, and what a DLA can run.

Sources: onnx-tensorrt's docs/operators.md of TensorRT 10.0 (opsets) and 10.15 (operators, types,
opsets), and its docs/Changelog.md, which says what came when since 10.0;
https://github.com/onnx/onnx-tensorrt. TensorRT 10.16 is taken as 10.15.
"""

from __future__ import annotations

from typing import Final

Release = tuple[int, int]

OPERATORS: Final = frozenset({
    "Abs", "Acos", "Acosh", "Add", "And", "ArgMax", "ArgMin", "Asin", "Asinh", "Atan", "Atanh",
    "Attention", "AveragePool", "BatchNormalization", "BlackmanWindow", "Cast", "CastLike",
    "Ceil", "Celu", "Clip", "Concat", "Constant", "ConstantOfShape", "Conv", "ConvTranspose",
    "Cos", "Cosh", "CumSum", "DeformConv", "DepthToSpace", "DequantizeLinear", "Div", "Dropout",
    "Einsum", "Elu", "Equal", "Erf", "Exp", "Expand", "EyeLike", "Flatten", "Floor", "Gather",
    "GatherElements", "GatherND", "Gelu", "Gemm", "GlobalAveragePool", "GlobalLpPool",
    "GlobalMaxPool", "Greater", "GreaterOrEqual", "GridSample", "GroupNormalization", "GRU",
    "HammingWindow", "HannWindow", "HardSigmoid", "HardSwish", "Hardmax", "Identity", "If",
    "ImageScaler", "InstanceNormalization", "IsInf", "IsNaN", "LayerNormalization", "LeakyRelu",
    "Less", "LessOrEqual", "Log", "LogSoftmax", "Loop", "LRN", "LSTM", "LpNormalization",
    "LpPool", "MatMul", "Max", "MaxPool", "Mean", "MeanVarianceNormalization", "Min", "Mish",
    "Mod", "Mul", "Neg", "NonMaxSuppression", "NonZero", "Not", "OneHot", "Or", "Pad",
    "ParametricSoftplus", "Pow", "PRelu", "QuantizeLinear", "RandomNormal", "RandomNormalLike",
    "RandomUniform", "RandomUniformLike", "Range", "Reciprocal", "ReduceL1", "ReduceL2",
    "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSum", "ReduceSumSquare", "Relu", "Reshape", "Resize", "ReverseSequence",
    "RMSNormalization", "RNN", "RoiAlign", "RotaryEmbedding", "Round", "STFT", "ScaledTanh",
    "Scan", "Scatter", "ScatterElements", "ScatterND", "Selu", "Shape", "Shrink", "Sigmoid",
    "Sign", "Sin", "Sinh", "Size", "Slice", "Softmax", "Softplus", "Softsign", "SpaceToDepth",
    "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tan", "Tanh", "TensorScatter", "ThresholdedRelu",
    "Tile", "TopK", "Transpose", "Trilu", "Unsqueeze", "Upsample", "Where", "Xor",
})  # fmt: skip

# What the oldest that we run on, 10.3, does not have yet.
SINCE: Final[dict[str, Release]] = {
    "BlackmanWindow": (10, 4), "HammingWindow": (10, 4), "HannWindow": (10, 4), "STFT": (10, 5),
    "Attention": (10, 14), "RMSNormalization": (10, 15), "RotaryEmbedding": (10, 15),
    "TensorScatter": (10, 15),
}  # fmt: skip

OLDEST_OPSET: Final = 9
# The last opset that a release's table names; one between two tables is held to the older.
_NEWEST_OPSETS: Final[dict[Release, int]] = {(10, 0): 20, (10, 15): 24}

# ONNX's names of the element types; STRING, COMPLEX* and 16-bit or unsigned integers are not there.
TYPES: Final = frozenset({
             "DOUBLE",         "FLOAT",         "FLOAT16",         "BFLOAT16",
    "FLOAT8E4M3FN",         "INT32",         "INT64",         "INT8",         "INT4",
    "UINT8",         "BOOL",
})  # fmt: skip
# FP8 came with Ada (8.9): Orin does not run it.
# https://nvidia.github.io/TensorRT-Edge-LLM/0.11.1/user_guide/getting_started/support-matrix.html
FP8: Final = "FLOAT8E4M3FN"
FP8_COMPUTE_CAPABILITY: Final = (8, 9)

RESIZE_MODES: Final = ("nearest", "linear")

# Of DLA layers only those are judged whose limits the page states in full in its summary.
# https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/dla-layer-restrictions.html
DLA_SOURCE: Final = (
    "https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/"
    "dla-layer-restrictions.html"
)
DLA_ELEMENTWISE: Final = frozenset(["Add", "Sub", "Mul", "Max", "Min", "Div", "Pow"])
DLA_ACTIVATIONS: Final = frozenset(["Relu", "Sigmoid", "Tanh", "LeakyRelu"])
DLA_KERNEL: Final = range(1, 33)
DLA_STRIDE: Final = range(1, 9)
DLA_CHANNELS: Final = range(1, 8193)
DLA_LRN_WINDOWS: Final = (3, 5, 7, 9)
# Seen on the GPU in trtexec's log of an Orin.
# https://github.com/NVIDIA-AI-IOT/jetson_dla_tutorial
DLA_NEVER: Final = frozenset({"InstanceNormalization", "GroupNormalization"})


def takes(operator: str, release: Release) -> bool:
    """Return whether the parser of a TensorRT has an operator of ONNX's own domain."""
    return operator in OPERATORS and SINCE.get(operator, release) <= release


def newest_opset(release: Release) -> int:
    """Return the last opset that the parser of a TensorRT is said to support."""
    return max(opset for since, opset in _NEWEST_OPSETS.items() if since <= release)
