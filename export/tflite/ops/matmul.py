"""Matrix products: fully connected layers, and products of two activations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.schema_py_generated import BuiltinOperator as Op
from numpy.typing import NDArray

from ...nodes import attribute, is_constant, optional_input, shape_of, unsupported
from ..layout import Layout, plain, same_memory
from ..lowering import Form, Lowering
from ..steps import finish
from ..weights import Weights, choose
from .joining import unflattened


def gemm(ctx: Lowering, node: ir.Node) -> None:
    """Lower Gemm with constant weights to FULLY_CONNECTED."""
    bias = optional_input(node, 2)
    if not is_constant(node.inputs[1]) or (bias is not None and not is_constant(bias)):
        raise unsupported(
            node, "its weights are computed at run time", "use MatMul and Add for activations"
        )
    transposed = bool(attribute(node, "transB", 0))
    addend = ctx.constant(bias)
    channels = shape_of(node.outputs[0])[-1]
    if addend is not None and addend.size not in (1, channels):
        raise unsupported(node, f"its bias has shape {addend.shape}", "use one value per class")
    if addend is not None:
        addend = addend * np.float32(attribute(node, "beta", 1.0))
    activation, output = ctx.fuse_activation(node)
    weights = choose(ctx, node, output, axis=0 if transposed else 1, bias=addend)
    alpha = np.float32(attribute(node, "alpha", 1.0))
    if alpha != 1:
        if weights.scales is not None:
            raise unsupported(node, f"alpha is {alpha} in int8", "fold it into the weights")
        weights = replace(weights, values=weights.values * alpha)
    values = weights.values if transposed else weights.values.T
    form = ctx.padded(ctx.form(node.inputs[0]))
    if attribute(node, "transA", 0):
        form = unflattened(ctx, form)
        form = replace(form, shape=form.shape[::-1], layout=form.layout.transposed((1, 0)))
    _fully_connected(ctx, node, form, weights, values, output, activation)


def matmul(ctx: Lowering, node: ir.Node) -> None:
    """Lower MatMul: FULLY_CONNECTED where the weights are constant, else BATCH_MATMUL."""
    weights_shape = shape_of(node.inputs[1]) if is_constant(node.inputs[1]) else ()
    if len(weights_shape) == 2 and len(shape_of(node.inputs[0])) > 1:
        bias, last = _following_bias(ctx, node)
        activation, output = ctx.fuse_activation(last)
        weights = choose(ctx, node, output, axis=1, bias=bias)
        form = ctx.padded(ctx.form(node.inputs[0]))
        _fully_connected(ctx, node, form, weights, weights.values.T, output, activation)
        return
    output = node.outputs[0]
    quant = ctx.int8(node, Op.BATCH_MATMUL, node.inputs, output)
    forms = [ctx.padded(ctx.form(value)) for value in node.inputs]
    shape = list(shape_of(output))
    # A vector is a matrix of one row on the left, of one column on the right.
    if len(forms[1].shape) == 1:
        forms[1] = ctx.reshape(forms[1], (*forms[1].shape, 1))
        shape.append(1)
    if len(forms[0].shape) == 1:
        forms[0] = ctx.reshape(forms[0], (1, *forms[0].shape))
        shape.insert(len(shape) - 1, 1)
    operands = [_matrix(ctx, form, int8=quant is not None) for form in forms]
    options = schema.BatchMatMulOptionsT()
    options.adjX, options.adjY = operands[0][1], operands[1][1]
    inputs = [tensor for tensor, _ in operands]
    made = ctx.temporary(str(output.name), tuple(shape), plain(len(shape)), quant)
    ctx.writer.operator(Op.BATCH_MATMUL, inputs, [made.tensor], options)
    finish(ctx, output, made)


def _matrix(ctx: Lowering, form: Form, *, int8: bool) -> tuple[int, bool]:
    """Return the tensor of an operand, and whether it holds its matrices transposed."""
    form = ctx.padded(form)
    quant = form.quant if int8 else None
    rank = len(form.shape)
    straight = plain(rank)
    swapped = Layout((*range(rank - 2), rank - 1, rank - 2))
    held = form.layout
    transposed = held.flattened is None and same_memory(form.shape, held, swapped)
    if transposed and not same_memory(form.shape, held, straight):
        return ctx.convert(form, swapped, quant).tensor, True
    return ctx.convert(form, straight, quant).tensor, False


def _following_bias(ctx: Lowering, node: ir.Node) -> tuple[NDArray[Any] | None, ir.Node]:
    """Return the constant that a sole following Add adds to each row, and the last node."""
    product = node.outputs[0]
    users = [use.node for use in product.uses()]
    if len(users) != 1 or users[0].op_type != "Add" or product.is_graph_output():
        return None, node
    other = next((v for v in users[0].inputs if v is not product), None)
    bias = ctx.constant(other)
    if bias is None or bias.shape != shape_of(product)[-1:]:
        return None, node
    ctx.done.add(users[0])
    return bias, users[0]


def _fully_connected(
    ctx: Lowering,
    node: ir.Node,
    form: Form,
    weights: Weights,
    values: NDArray[Any],
    output: ir.Value,
    activation: int,
) -> None:
    """Emit the layer for ``values`` of shape (O, I) and an input in ``form``."""
    flattened = form.layout.flattened
    # The input keeps its order: the weights' columns follow it.
    arranged = values if flattened is None else flattened.arrange(values)
    layout = form.layout if flattened is not None else plain(len(form.shape))
    shape = shape_of(output)
    data = ctx.convert(form, layout, weights.source).tensor
    # A matrix of tokens that were images or batches before is read, and written, as these.
    natural = ctx.writer.tensors[ctx.unreshaped(data)].shape
    if flattened is None and natural[-1] == form.shape[-1] and len(natural) <= 4:
        data, shape = ctx.unreshaped(data), (*natural[:-1], shape[-1])
    options = schema.FullyConnectedOptionsT()
    options.fusedActivationFunction = activation
    options.keepNumDims = len(shape) > 2
    options.asymmetricQuantizeInputs = weights.dynamic
    inputs = [data, *weights.write(ctx, node, arranged, 0, shape=values.shape)]
    made = ctx.temporary(str(output.name), shape, plain(len(shape)), weights.quant)
    ctx.writer.operator(Op.FULLY_CONNECTED, inputs, [made.tensor], options)
    ctx.set(output, ctx.reshape(made, shape_of(output)))
