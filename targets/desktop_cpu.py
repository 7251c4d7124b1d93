"""A PC or server without a GPU: ONNX Runtime on the CPU."""

from __future__ import annotations

from typing import Final

from ..core.values import QuantScheme
from .target import Target, Tolerance

TARGET: Final = Target(
    name="desktop-cpu",
    title="PC or server CPU (x86-64, arm64), ONNX Runtime",
    ships="onnx",
    precisions=("int8", "int8-dynamic", "fp32"),
    backends=("onnxruntime-cpu",),
    simulators=("onnxruntime",),
    # x86 multiplies unsigned by signed bytes: symmetric int8 activations are no faster than float.
    # https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
    scheme=QuantScheme(activations="asymmetric", placement="full", codes="uint8"),
    tolerances={
        "int8": Tolerance(logits=0.07, source="fused kernels round a step elsewhere in each layer"),
        # Sums of codes are exact; ranges are float32's, and a code at a tie may fall either way.
        "int8-dynamic": Tolerance(logits=0.05, source="a code of an input that is rounded anew"),
        "fp32": Tolerance(logits=1e-4, source="another order of float32 sums"),
    },
    runs_anywhere="onnxruntime-cpu",
)
