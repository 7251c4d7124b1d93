"""Raspberry Pi 4 and 5, 64-bit: LiteRT on the CPU."""

from __future__ import annotations

from typing import Final

from ..core.values import QuantScheme
from .target import Target, Tolerance

TARGET: Final = Target(
    name="raspberry-pi",
    title="Raspberry Pi 4 and 5 (64-bit), LiteRT with XNNPACK",
    ships="tflite",
    precisions=("int8", "int16x8", "int8-dynamic", "int8-weights", "fp16", "fp32"),
    backends=("litert", "tflite-runtime", "tensorflow"),
    simulators=(),
    runs_anywhere="litert",
    # https://ai.google.dev/edge/litert/models/quantization_spec
    scheme=QuantScheme(activations="asymmetric", placement="full"),
    tolerances={
        # Measured: int8 CNNs are bit-identical on x86-64 and arm64, a ViT within 8 steps of 256.
        "int8": Tolerance(logits=0.07, source="8 of 256 steps over a range with two signs"),
        # LiteRT and the simulation of a whole network were 0.0003 apart, and on the devices run the
        # same integer kernels; what is left float in a ViT has float32's freedom.
        "int16x8": Tolerance(logits=0.005, source="single steps of 32767 add up over the layers"),
        # Measured on EfficientNet-Lite0: 0.005 between x86-64 and an emulated Cortex-A72 or A76,
        # 0.022 between kernels that take the range of a pixel and those that take an image's.
        "int8-dynamic": Tolerance(logits=0.05, source="kernels take ranges over different parts"),
        # As fp32 from weights that are stored smaller; 8e-7 was measured on both cores.
        "int8-weights": Tolerance(logits=1e-4, source="computes in float32 with the same weights"),
        "fp16": Tolerance(logits=1e-4, source="computes in float32 with the same weights"),
        "fp32": Tolerance(logits=1e-4, source="another order of float32 sums; 5e-6 was measured"),
    },
)
