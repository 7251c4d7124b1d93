"""Frozen values that stages hand to each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""Images after resize and crop: (N, H, W, C), codes 0..255, channels in the model's order."""

Tensor = NDArray[np.float32]
"""Normalised images: (N, C, H, W)."""

Logits = NDArray[np.float32]
"""A model's outputs before softmax: (N, classes)."""

Precision = Literal["int8", "int16x8", "int8-dynamic", "int8-weights", "fp16", "fp32"]
"""Of a file's weights and arithmetic; a target says which of them it takes.

- int8: weights and activations, calibrated.
- int16x8: int8 weights and int16 activations, calibrated.
- int8-dynamic: int8 weights; activations are quantized as the network runs.
- int8-weights: int8 weights, computed with in float32.
- fp16: weights, and the arithmetic where the target has it.
"""

PRECISIONS: Final[tuple[Precision, ...]] = get_args(Precision)

CALIBRATED: Final[Mapping[Precision, Literal[8, 16]]] = {"int8": 8, "int16x8": 16}
"""The bits of activations, by the precisions that need images: their activations have scales."""

ArtefactFormat = Literal["onnx", "tflite", "tensorrt-rtx", "onnx-calibrated"]
"""What a file is.

- onnx, tflite: a graph; int8 is what its Q/DQ or its types say.
- tensorrt-rtx: an engine of TensorRT-RTX, finished on the GPU that loads it.
- onnx-calibrated: a float32 graph that TensorRT 10 quantizes by a calibration cache.
"""

Granularity = Literal["per_channel", "per_tensor"]
"""How many scales weights have: one for each output channel, or one for all."""

INT16_OPSET: Final = 21
"""The first ONNX opset whose QuantizeLinear takes 16 bits."""


class TensorSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Name, shape and dtype of a model's input or output.

    Attributes:
        name: The tensor's name in the graph.
        shape: One size per axis; None where the batch is free.
        dtype: A numpy dtype's name.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str = "float32"


class StepCheck(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far a step of the conversion moved the outputs.

    Attributes:
        step: The step's name: "torch-to-onnx", "simplify", "fold", "lower", ...
        against: What its outputs were compared with.
        max_difference: max|a-b| / max|a| over all samples.
        limit: The largest difference that was allowed; None where the step may cost accuracy and
            the drift gate judges it.
    """

    step: str
    against: str
    max_difference: float
    limit: float | None


class QuantScheme(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a target quantizes. Weights are always int8 and symmetric.

    Attributes:
        activations: "symmetric" has zero point 0 and codes of equal weight on both sides;
            "asymmetric" has a zero point of its own.
        placement: "fused" puts Q/DQ where TensorRT fuses them (inputs of convolutions and matrix
            products, the skip branch of a residual addition); "full" on every activation.
        activation_bits: 8 or 16, the latter only where they are symmetric.
        codes: "uint8" where kernels multiply unsigned activations by signed weights, and add
            int32 biases: the same scales, codes and zero points 128 higher.
        weights: "per_tensor" is what older hardware has, and none of the targets.
    """

    activations: Literal["symmetric", "asymmetric"]
    placement: Literal["fused", "full"]
    activation_bits: Literal[8, 16] = 8
    codes: Literal["int8", "uint8"] = "int8"
    weights: Granularity = "per_channel"

    def __post_init__(self) -> None:
        """Refuse a scheme that no runtime has."""
        if self.activation_bits == 16 and self.activations != "symmetric":
            raise ValueError("16-bit activations are symmetric")
        if self.codes == "uint8" and self.activations != "asymmetric":
            raise ValueError("unsigned activations are asymmetric")


def relative_difference(expected: NDArray[np.floating], found: NDArray[np.floating]) -> float:
    """Return max|expected - found| / max|expected|, the project's measure of a difference.

    Returns:
        0.0 for equal arrays; infinity where either holds a NaN or an infinity, or where
        ``expected`` is all zero and ``found`` is not.

    Raises:
        ValueError: The shapes differ.
    """
    if expected.shape != found.shape:
        raise ValueError(f"expected shape {expected.shape}, found {found.shape}")
    if not (np.isfinite(expected).all() and np.isfinite(found).all()):
        return float("inf")
    difference = float(np.abs(expected.astype(np.float64) - found).max(initial=0.0))
    if difference == 0.0:
        return 0.0
    magnitude = float(np.abs(expected).max(initial=0.0))
    return difference / magnitude if magnitude else float("inf")
