"""QuantizeLinear and DequantizeLinear: names for parameters, operators only at borders."""

from __future__ import annotations

import onnx_ir as ir

from ..lowering import Lowering
from ..nodes import unsupported
from ..quantization import parameters


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
        if ctx.constant(node.outputs[0]) is None:
            raise unsupported(node, "its scale is computed at run time", "make it constant")
        return
    form, quant = ctx.form(node.inputs[0]), parameters(node)
    if form.quant != quant:
        raise unsupported(
            node,
            f"it reads codes of {form.quant} as {quant}",
            "give a QuantizeLinear and its DequantizeLinear the same scale and zero point",
        )
    ctx.set(node.outputs[0], form)
