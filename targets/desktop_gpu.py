"""A desktop GPU by NVIDIA (Turing or later): TensorRT-RTX, TensorRT or ONNX Runtime's CUDA."""

from __future__ import annotations

from typing import Final

from .jetson import SCHEME, TOLERANCES
from .target import Target

TARGET: Final = Target(
    name="desktop-gpu",
    title="NVIDIA GPU in a PC (RTX 20 series or later), TensorRT-RTX",
    ships="onnx",
    precisions=("int8", "fp16", "fp32"),
    backends=("tensorrt-rtx", "tensorrt", "onnxruntime-cuda"),
    simulators=("onnxruntime",),
    scheme=SCHEME,
    tolerances=TOLERANCES,
    base_precision="fp16",
    engine=True,
)
