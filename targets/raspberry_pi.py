"""Raspberry Pi 4 and 5, 64-bit: LiteRT on the CPU."""

from __future__ import annotations

from typing import Final

from ..core.values import QuantScheme
from .target import Target, Tolerance

TARGET: Final = Target(
    name="raspberry-pi",
    title="Raspberry Pi 4 and 5 (64-bit), LiteRT with XNNPACK",
    ships="tflite",
    precisions=("int8", "int16x8", "fp32"),
    backends=("litert", "tflite-runtime", "tensorflow"),
    simulators=(),
    # https://ai.google.dev/edge/litert/models/quantization_spec
    scheme=QuantScheme(activations="asymmetric", placement="full"),
    tolerances={
        # Measured: int8 CNNs are bit-identical on x86-64 and arm64, a ViT within 8 steps of 256.
        "int8": Tolerance(logits=0.07, source="8 of 256 steps over a range with two signs"),
        # LiteRT and the simulation of a whole network were 0.0003 apart, and on the devices run the
        # same integer kernels; what is left float in a ViT has float32's freedom.
        "int16x8": Tolerance(logits=0.005, source="single steps of 32767 add up over the layers"),
        "fp32": Tolerance(logits=1e-4, source="another order of float32 sums; 5e-6 was measured"),
    },
)
