"""QuantizeLinear and DequantizeLinear: names for parameters, operators only at borders."""

from __future__ import annotations

import onnx_ir as ir

from ...nodes import COMPUTING, is_constant, unsupported
from ..lowering import Lowering
from ..quantization import is_dynamic, parameters


def quantize(ctx: Lowering, node: ir.Node) -> None:
    """Lower QuantizeLinear on an activation."""
    quant = parameters(node)
    form = ctx.form(node.inputs[0])
    if form.quant != quant:
        form = ctx.convert(form, form.layout, quant)
    ctx.set(node.outputs[0], form)


def dynamic_quantize(ctx: Lowering, node: ir.Node) -> None:
    """Lower DynamicQuantizeLinear to nothing: kernels with int8 weights do it themselves."""
    readers = [use.node for use in node.outputs[0].uses()]
    computing = [use for reader in readers for use in reader.outputs[0].uses()]
    kept = any(output.is_graph_output() for output in node.outputs)
    before_weights = all(
        use.node.op_type in COMPUTING and use.idx == 0 for use in computing
    ) and all(reader.op_type == "DequantizeLinear" for reader in readers)
    if kept or not before_weights:
        raise unsupported(
            node,
            "its codes are read by others than a DequantizeLinear before weights",
            "quantize as it runs only what convolutions and matrix products read",
        )
    ctx.set(node.outputs[0], ctx.form(node.inputs[0]))


def dequantize(ctx: Lowering, node: ir.Node) -> None:
    """Lower DequantizeLinear; a constant's is read by whoever uses it."""
    if is_constant(node.inputs[0]):
        if not is_constant(node.outputs[0]):
            raise unsupported(node, "its scale is computed at run time", "make it constant")
        return
    if is_dynamic(node.outputs[0]):
        ctx.set(node.outputs[0], ctx.form(node.inputs[0]))
        return
    form, quant = ctx.form(node.inputs[0]), parameters(node)
    if form.quant != quant:
        raise unsupported(
            node,
            f"it reads codes of {form.quant} as {quant}",
            "give a QuantizeLinear and its DequantizeLinear the same scale and zero point",
        )
    ctx.set(node.outputs[0], form)
