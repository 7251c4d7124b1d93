"""NVIDIA Jetson: TensorRT builds the engine on the device from the shipped ONNX graph."""

from __future__ import annotations

from typing import Final

from ..core.values import Precision, QuantScheme
from .target import Target, Tolerance

# Explicit quantization: symmetric, zero point 0; a non-zero one is refused by the parser.
# https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-quantized-types.html
SCHEME: Final = QuantScheme(activations="symmetric", placement="fused")

TOLERANCES: Final[dict[Precision, Tolerance]] = {
    "int8": Tolerance(logits=0.08, source="INT8 kernels round differently: a few steps per layer"),
    "fp16": Tolerance(logits=0.02, source="FP16 has 11 bits; sums over some thousand products"),
    "fp32": Tolerance(logits=0.005, source="TF32 may replace float32 in convolutions"),
}

TARGET: Final = Target(
    name="jetson",
    title="NVIDIA Jetson (Orin, Thor), TensorRT 10.3 or later",
    ships="onnx",
    precisions=("int8", "fp16", "fp32"),
    backends=("tensorrt",),
    simulators=("onnxruntime",),
    scheme=SCHEME,
    tolerances=TOLERANCES,
    base_precision="fp16",
    jetpack=True,
)
