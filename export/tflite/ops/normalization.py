"""Normalizations, as compositions in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.schema_py_generated import BuiltinOperator as Op

from ...nodes import attribute, optional_input, unsupported
from ..layout import NHWC, plain
from ..lowering import Form, Lowering
from ..steps import apply, finish, fixed, reduced, unquantized


def batch_normalization(ctx: Lowering, node: ir.Node) -> None:
    """Lower a BatchNormalization that no convolution took over: a factor and an addend."""
    if attribute(node, "training_mode", 0):
        raise unsupported(node, "its training mode is on", "export the model in eval mode")
    scale, bias, mean, variance = (_required(ctx, node, index) for index in range(1, 5))
    factor = scale / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
    rank = len(ctx.form(node.inputs[0]).shape)
    along = (1, -1) + (1,) * (rank - 2)
    activation, output = ctx.fuse_activation(node)
    ctx.count(node, int8=False)
    form = unquantized(ctx, node.inputs[0])
    scaled = apply(
        ctx, Op.MUL, [form, fixed(ctx, factor.reshape(along), form)], form, schema.MulOptionsT()
    )
    addend = fixed(ctx, (bias - mean * factor).reshape(along), form)
    options = schema.AddOptionsT()
    options.fusedActivationFunction = activation
    finish(ctx, output, apply(ctx, Op.ADD, [scaled, addend], form, options))


def layer_normalization(ctx: Lowering, node: ir.Node) -> None:
    """Lower LayerNormalization over the axes from ``axis`` on."""
    form = ctx.padded(ctx.form(node.inputs[0]))
    rank = len(form.shape)
    if rank == 3 and form.layout.axis(-1) != rank - 1:
        # Tokens: what follows are products along the last axis.
        form = ctx.convert(form, plain(rank), form.quant)
    axes = list(range(attribute(node, "axis", -1) % rank, rank))
    bias = optional_input(node, 2)
    addend = 0.0 if bias is None else _required(ctx, node, 2)
    _normalize(ctx, node, form, axes, _required(ctx, node, 1), addend)


def instance_normalization(ctx: Lowering, node: ir.Node) -> None:
    """Lower InstanceNormalization, over all axes but batch and channel."""
    form = ctx.padded(ctx.form(node.inputs[0]))
    rank = len(form.shape)
    along = (1, -1) + (1,) * (rank - 2)
    scale, bias = (_required(ctx, node, index).reshape(along) for index in (1, 2))
    _normalize(ctx, node, form, list(range(2, rank)), scale, bias)


def local_response(ctx: Lowering, node: ir.Node) -> None:
    """Lower LRN over neighbouring channels."""
    size = attribute(node, "size", 1)
    if size % 2 == 0:
        raise unsupported(node, f"its size is {size}", "use an odd size")
    ctx.count(node, int8=False)
    source, output = node.inputs[0], node.outputs[0]
    data = ctx.tensor(source, NHWC)
    options = schema.LocalResponseNormalizationOptionsT()
    options.radius = size // 2
    options.bias = attribute(node, "bias", 1.0)
    # ONNX divides the sum by the window's size.
    options.alpha = attribute(node, "alpha", 1e-4) / size
    options.beta = attribute(node, "beta", 0.75)
    ctx.writer.operator(
        Op.LOCAL_RESPONSE_NORMALIZATION, [data], [ctx.new(output, NHWC, None)], options
    )


def _normalize(
    ctx: Lowering, node: ir.Node, form: Form, axes: list[int], scale: Any, bias: Any
) -> None:
    ctx.count(node, int8=False)
    form = ctx.convert(form, form.layout, None)
    mean = reduced(ctx, Op.MEAN, form, axes)
    centred = apply(ctx, Op.SUB, [form, mean], form, schema.SubOptionsT())
    squares = apply(ctx, Op.MUL, [centred, centred], form, schema.MulOptionsT())
    variance = reduced(ctx, Op.MEAN, squares, axes)
    epsilon = fixed(ctx, attribute(node, "epsilon", 1e-5), variance)
    shifted = apply(ctx, Op.ADD, [variance, epsilon], variance, schema.AddOptionsT())
    inverse = apply(ctx, Op.RSQRT, [shifted], variance)
    form = apply(ctx, Op.MUL, [centred, inverse], form, schema.MulOptionsT())
    if (np.asarray(scale) != 1).any():
        factor = fixed(ctx, scale, form)
        form = apply(ctx, Op.MUL, [form, factor], form, schema.MulOptionsT())
    if np.any(bias):
        form = apply(ctx, Op.ADD, [form, fixed(ctx, bias, form)], form, schema.AddOptionsT())
    finish(ctx, node.outputs[0], form)


def _required(ctx: Lowering, node: ir.Node, index: int) -> Any:
    found = ctx.constant(node.inputs[index])
    if found is None:
        raise unsupported(node, "its parameters are computed at run time", "make them constant")
    return found
