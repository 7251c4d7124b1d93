"""Weights and biases of convolutions and matrix products, as float or as int8."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...core.errors import GraphError
from ..nodes import node_name, shape_of, unsupported
from .lowering import Lowering
from .quantization import Codes, Quant, is_dynamic, quantized_weight
from .writer import ChannelQuant

# By the activations' width, the bias's type and its largest code. An int32 accumulator holds the
# bias and the sum of products: half of it is left to each. A 16-bit one has 64 bits, of which the
# kernel rescales 48.
_BIASES: Final = {8: (np.int32, 2.0**30), 16: (np.int64, 2.0**46)}

# The step of a channel without weights, in steps of the output: fine enough that its bias, which
# is all it adds, is not rounded visibly.
_DEAD_STEP: Final = 1 / 256

# How far a coarser scale may move an output at worst, in steps.
_COARSE_ERROR: Final = 0.25


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """The constants of a node, and how the node computes.

    Attributes:
        values: float32, or int8 codes; shaped as in the graph.
        bias: Shape (channels,), float32, or int32 (int64 for 16-bit activations) in steps of input
            scale times weight scale.
        scales: Shape (channels,) or (1,), float32; None where the values are float.
        source: The input's parameters; None where the node does not compute on quantized
            activations.
        quant: The output's parameters; None as above.
        dynamic: Whether the node quantizes its input as it runs.
    """

    values: NDArray[Any]
    bias: NDArray[Any]
    scales: NDArray[np.float32] | None = None
    source: Quant | None = None
    quant: Quant | None = None
    dynamic: bool = False

    def write(
        self,
        ctx: Lowering,
        node: ir.Node,
        arranged: NDArray[Any],
        axis: int,
        *,
        shape: tuple[int, ...] | None = None,
    ) -> list[int]:
        """Write weights and bias; return their tensors.

        Args:
            ctx: The lowering.
            node: The node whose they are.
            arranged: ``values`` as TFLite wants them, the channels along ``axis``.
            axis: As above.
            shape: The tensor's, if it is not that of ``arranged``.
        """
        name = node_name(node)
        if self.scales is None:
            weight = _float_constant(ctx, f"{name}_weight", arranged, shape)
            return [weight, _float_constant(ctx, f"{name}_bias", self.bias, None)]
        weight = ctx.writer.constant(
            f"{name}_weight", arranged, ChannelQuant(self.scales, axis), shape=shape
        )
        bias_quant = None
        if self.source is not None:
            bias_quant = ChannelQuant(self.scales * np.float32(self.source.scale), 0)
        elif not self.dynamic:
            weight = ctx.unpacked(weight)
        return [weight, ctx.writer.constant(f"{name}_bias", self.bias, bias_quant)]


def _float_constant(
    ctx: Lowering, name: str, values: NDArray[np.float32], shape: tuple[int, ...] | None
) -> int:
    """Write values, as FP16 where this is asked for and exact; return a float32 tensor."""
    if ctx.weights == "float16":
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if np.array_equal(half, values):
            return ctx.unpacked(ctx.writer.constant(name, half, shape=shape))
    return ctx.writer.constant(name, values, shape=shape)


def choose(
    ctx: Lowering,
    node: ir.Node,
    output: ir.Value,
    *,
    axis: int,
    bias: NDArray[Any] | None,
) -> Weights:
    """Decide how a node of (input, weights, ...) computes, and return its constants.

    Args:
        ctx: The lowering.
        node: Its second input is a constant.
        output: What it makes, after a fused activation.
        axis: The weights' axis of output channels.
        bias: One float per channel, or one for all, or None for zeros.

    Raises:
        UnsupportedOperatorError: The weights' scales are along another axis, or only the input
            is quantized as the node runs.
        GraphError: A bias is too large for its step.
    """
    source = ctx.form(node.inputs[0]).quant
    dynamic = is_dynamic(node.inputs[0])
    weight = None
    if source is not None or dynamic or ctx.weights == "int8":
        weight = quantized_weight(node.inputs[1])
    if weight is None and dynamic:
        raise unsupported(
            node,
            "its input is quantized as it runs, its weights are float",
            "quantize its weights too, per output channel",
        )
    if weight is not None and weight.axis not in (None, axis):
        raise unsupported(
            node,
            f"its weights have scales along axis {weight.axis}",
            f"quantize them along axis {axis}, the output channels",
        )
    quant = ctx.wanted(output) if weight is not None and source is not None else None
    if source is not None and quant is not None and source.bits != quant.bits:
        quant = None
    ctx.count(node, int8=dynamic or quant is not None)
    channels = shape_of(node.inputs[1])[axis]
    floats = np.zeros(channels) if bias is None else np.broadcast_to(bias.ravel(), channels)
    if weight is not None and source is None:
        scales = np.broadcast_to(weight.scales, channels)
        return Weights(weight.codes, floats.astype(np.float32), scales, dynamic=dynamic)
    if weight is None or source is None or quant is None:
        values = ctx.constant(node.inputs[1])
        assert values is not None
        return Weights(values.astype(np.float32, copy=False), floats.astype(np.float32))
    rows = np.moveaxis(weight.codes, axis, 0)
    try:
        rows, scales, codes = fit_bias(rows, weight.scales, floats, source, quant)
    except OverflowError as error:
        raise GraphError(f"{node.op_type} (node {node_name(node)!r}): {error}") from error
    return Weights(np.moveaxis(rows, 0, axis), codes, scales, source, quant)


def fit_bias(
    codes: Codes,
    scales: NDArray[np.float32],
    bias: NDArray[np.floating],
    source: Quant,
    quant: Quant,
) -> tuple[Codes, NDArray[np.float32], NDArray[np.signedinteger[Any]]]:
    """Return weights, their scales, and the bias in integer steps of input times weight scale.

    Scales stay as they are but for two kinds of channels. One without weights gets a step that is
    fine for its bias, which is all it adds. One with weights so small that its bias does not fit
    its type gets a coarser scale, and codes that are rounded to it.

    Args:
        codes: Weights, output channels first.
        scales: Shape (channels,) or (1,).
        bias: Shape (channels,).
        source: The input's parameters.
        quant: The output's parameters.

    Raises:
        OverflowError: A coarser scale would move an output by more than a quarter of a step.
    """
    flat = codes.reshape(len(codes), -1)
    dead = ~flat.any(axis=1)
    fitted = np.broadcast_to(scales, len(codes)).astype(np.float32)
    fitted[dead] = np.float32(_DEAD_STEP * quant.scale / source.scale)
    dtype, largest = _BIASES[source.bits]
    needed = np.abs(bias) / (fitted.astype(np.float64) * source.scale * largest)
    factor = np.where(needed > 1, 2.0 ** np.ceil(np.log2(np.maximum(needed, 1))), 1.0)
    error = np.zeros(len(flat))
    # The input is at most 255 codes away from its zero point, or 2**15 in 16 bits.
    farthest = 255 if source.bits == 8 else 1 << 15
    coarser = np.flatnonzero(factor > 1)
    if coarser.size:
        flat = flat.copy()
    for row in coarser:
        exact, flat[row] = flat[row] / factor[row], np.rint(flat[row] / factor[row])
        lost = np.abs(exact - flat[row]).sum() * factor[row]
        error[row] = lost * fitted[row] * source.scale * farthest / quant.scale
    worst = int(error.argmax())
    if error[worst] > _COARSE_ERROR:
        raise OverflowError(
            f"the bias {bias[worst]:.6g} of channel {worst} does not fit {np.dtype(dtype)} in "
            f"steps of {fitted[worst] * source.scale:.3g}, input scale times weight scale; "
            "quantize the small weights of this channel with a larger scale"
        )
    fitted = (fitted * factor).astype(np.float32)
    if (fitted == scales).all():
        fitted = scales
    steps = fitted.astype(np.float64) * source.scale
    # A dead channel's output saturates long before its bias does.
    rounded = np.clip(np.rint(bias / steps), -largest, largest)
    return flat.reshape(codes.shape), fitted, rounded.astype(dtype)
