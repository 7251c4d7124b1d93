"""QuantizeLinear and DequantizeLinear: names for parameters, operators only at borders."""

from __future__ import annotations

import onnx_ir as ir

from ..lowering import Lowering
from ..quantization import dequantized, parameters


def quantize(ctx: Lowering, node: ir.Node) -> None:
    """Lower QuantizeLinear on an activation."""
    quant = parameters(node)
    form = ctx.form(node.inputs[0])
    if form.quant != quant:
        form = ctx.convert(form, form.layout, quant)
    ctx.set(node.outputs[0], form)


def dequantize(ctx: Lowering, node: ir.Node) -> None:
    """Lower DequantizeLinear; a constant's is read by whoever uses it."""
    if ctx.constant(node.inputs[0]) is not None:
        if dequantized(node) is None:
            parameters(node)
        return
    form = ctx.form(node.inputs[0])
    parameters(node)
    ctx.set(node.outputs[0], form)
