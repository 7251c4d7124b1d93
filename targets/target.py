"""What a target is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

from ..core.values import ArtefactFormat, Precision, QuantScheme

BackendName = Literal[
    "litert",
    "tflite-runtime",
    "tensorflow",
    "onnxruntime",
    "onnxruntime-cpu",
    "onnxruntime-cuda",
    "tensorrt",
    "tensorrt-rtx",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How far a device's logits may lie from the golden ones.

    Attributes:
        logits: Largest max|a-b| / max|a| over a golden sample.
        source: Why this much.
    """

    logits: float
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A kind of device, as data.

    Attributes:
        name: As given to ``--target``.
        title: What it is, in a line.
        ships: The format of the artefact that runs there.
        precisions: What it can run, the preferred first.
        backends: What may run its bundles, the preferred first; the first that is installed runs.
        simulators: What can run its bundles elsewhere: only when asked for by name.
        scheme: How it quantizes to int8.
        tolerances: By precision.
        base_precision: What runs where int8 does not: FP16 under Q/DQ, or float32.
        runs_anywhere: The backend that runs the very file on the machine that exports too; None
            where only a simulator does.
        engine: Whether a TensorRT engine can be built for it on the machine that exports.
        jetpack: Whether its devices run JetPack, and its graphs can be checked for one.
    """

    name: str
    title: str
    ships: ArtefactFormat
    precisions: tuple[Precision, ...]
    backends: tuple[BackendName, ...]
    simulators: tuple[BackendName, ...]
    scheme: QuantScheme
    tolerances: dict[Precision, Tolerance]
    base_precision: Precision = "fp32"
    runs_anywhere: BackendName | None = None
    engine: bool = False
    jetpack: bool = False

    @property
    def tensorrt(self) -> bool:
        """Whether TensorRT, or TensorRT-RTX, builds engines of its graphs."""
        return any(name.startswith("tensorrt") for name in self.backends)

    def scheme_for(self, precision: Precision) -> QuantScheme:
        """Return how the target quantizes for a calibrated precision."""
        if precision == "int16x8":
            return msgspec.structs.replace(self.scheme, activations="symmetric", activation_bits=16)
        return self.scheme
