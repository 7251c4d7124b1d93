"""Convolutions."""

from __future__ import annotations

import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.schema_py_generated import BuiltinOperator as Op

from ...nodes import attribute, is_constant, optional_input, shape_of, unsupported
from ..layout import NHWC
from ..lowering import Lowering
from ..weights import choose
from ..windows import Window, as_image, image_shape, place


def conv(ctx: Lowering, node: ir.Node) -> None:
    """Lower a convolution over one or two axes, its padding and the activation after it."""
    source, weight = node.inputs[0], node.inputs[1]
    if len(shape_of(source)) not in (3, 4):
        raise unsupported(
            node, f"its input has {len(shape_of(source))} axes", "use 1-D or 2-D convolutions"
        )
    if not is_constant(weight):
        raise unsupported(node, "its weights are computed at run time", "make them constant")
    bias = optional_input(node, 2)
    if bias is not None and ctx.constant(bias) is None:
        raise unsupported(node, "its bias is computed at run time", "make it constant")
    activation, output = ctx.fuse_activation(node)
    weights = choose(ctx, node, output, axis=0, bias=ctx.constant(bias))
    values = weights.values
    values = values[:, :, None] if values.ndim == 3 else values
    out_channels, depth, height, width = values.shape
    window = Window.of(node, (height, width))
    data, same = place(ctx, as_image(ctx, ctx.form(source)), window, weights.source)
    groups = attribute(node, "group", 1)
    if depth == 1 and groups > 1:
        # (channels * multiplier, 1, kH, kW) -> (1, kH, kW, channels * multiplier)
        arranged = values.transpose(1, 2, 3, 0)
        code, axis, options = Op.DEPTHWISE_CONV_2D, 3, schema.DepthwiseConv2DOptionsT()
        options.depthMultiplier = out_channels // groups
    else:
        # (O, I, kH, kW) -> (O, kH, kW, I); a grouped one is known by its smaller I.
        arranged = values.transpose(0, 2, 3, 1)
        code, axis, options = Op.CONV_2D, 0, schema.Conv2DOptionsT()
    options.padding = schema.Padding.SAME if same else schema.Padding.VALID
    options.strideH, options.strideW = window.strides
    options.dilationHFactor, options.dilationWFactor = window.dilations
    options.fusedActivationFunction = activation
    inputs = [data, *weights.write(ctx, node, arranged, axis)]
    made = ctx.temporary(str(output.name), image_shape(shape_of(output)), NHWC, weights.quant)
    ctx.writer.operator(code, inputs, [made.tensor], options)
    ctx.set(output, ctx.reshape(made, shape_of(output)))
