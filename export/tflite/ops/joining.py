"""Operators that join, cut and pick: in int8 they keep the codes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.schema_py_generated import BuiltinOperator as Op
from numpy.typing import NDArray

from ...nodes import attribute, shape_of, unsupported
from ..layout import Layout, plain
from ..lowering import Form, Lowering
from ..quantization import Quant


def concat(ctx: Lowering, node: ir.Node) -> None:
    """Lower Concat; in int8 every input is brought to the output's parameters."""
    output = node.outputs[0]
    axis = attribute(node, "axis", 0)
    forms = {
        value: ctx.padded(ctx.form(value)) for value in node.inputs if not _is_constant(ctx, value)
    }
    quant = joined_quant(ctx, node, list(forms.values()))
    layout = _joined_layout(list(forms.values()), len(shape_of(output)))
    inputs = [_joined(ctx, value, forms, layout, quant) for value in node.inputs]
    options = schema.ConcatenationOptionsT()
    options.axis = layout.axis(axis)
    ctx.writer.operator(Op.CONCATENATION, inputs, [ctx.new(output, layout, quant)], options)


def split(ctx: Lowering, node: ir.Node) -> None:
    """Lower Split."""
    source = node.inputs[0]
    rank = len(shape_of(source))
    axis = attribute(node, "axis", 0) % rank
    form = unflattened(ctx, ctx.form(source))
    order = _order_in_products(node)
    if order is not None:
        # Queries, keys and values of an attention: one TRANSPOSE before they are cut, not three.
        form = ctx.convert(form, Layout(order), form.quant)
    sizes = [shape_of(output)[axis] for output in node.outputs]
    made = [ctx.new(output, form.layout, form.quant) for output in node.outputs]
    where = ctx.writer.constant("axis", np.asarray(form.layout.axis(axis), np.int32))
    if len(set(sizes)) == 1:
        options = schema.SplitOptionsT()
        options.numSplits = len(sizes)
        ctx.writer.operator(Op.SPLIT, [where, form.tensor], made, options)
    else:
        options = schema.SplitVOptionsT()
        options.numSplits = len(sizes)
        lengths = ctx.writer.constant("sizes", np.asarray(sizes, np.int32))
        ctx.writer.operator(Op.SPLIT_V, [form.tensor, lengths, where], made, options)


def _order_in_products(node: ir.Node) -> tuple[int, ...] | None:
    """Return the order of axes in which products take all outputs, matrices transposed or not."""
    orders = set()
    for output in node.outputs:
        user = _only_user(output)
        if user is None or user.op_type != "Transpose":
            return None
        product = _only_user(user.outputs[0])
        while product is not None and product.op_type in ("Mul", "Reshape", "Transpose"):
            product = _only_user(product.outputs[0])
        if product is None or product.op_type != "MatMul":
            return None
        *outer, row, column = attribute(user, "perm", ())
        orders.add((*outer, min(row, column), max(row, column)))
    return orders.pop() if len(orders) == 1 else None


def _only_user(value: ir.Value) -> ir.Node | None:
    """Return the node that alone reads a value, behind the pairs on it."""
    users = {use.node for use in value.uses()}
    if len(users) != 1 or value.is_graph_output():
        return None
    user = users.pop()
    if user.op_type in ("QuantizeLinear", "DequantizeLinear"):
        return _only_user(user.outputs[0])
    return user


def gather(ctx: Lowering, node: ir.Node) -> None:
    """Lower Gather by constant indices."""
    source, output = node.inputs[0], node.outputs[0]
    indices = ctx.constant(node.inputs[1])
    if indices is None:
        raise unsupported(node, "its indices are computed at run time", "make them constant")
    form = unflattened(ctx, ctx.form(source))
    axis = attribute(node, "axis", 0) % len(form.shape)
    chosen = indices.astype(np.int64).ravel() % form.shape[axis]
    made = picked(ctx, str(output.name), form, axis, chosen)
    if indices.ndim != 1:
        # The axis is dropped by a single number, split by a table of indices.
        made = ctx.reshape(made, shape_of(output))
    ctx.set(output, made)


def picked(ctx: Lowering, name: str, form: Form, axis: int, indices: NDArray[np.int64]) -> Form:
    """Return the chosen positions along an axis: all of them, a run of them, or a list."""
    shape = (*form.shape[:axis], indices.size, *form.shape[axis + 1 :])
    run = bool((np.diff(indices) == 1).all())
    if run and shape == form.shape:
        return form
    made = ctx.temporary(name, shape, form.layout, form.quant)
    options: Any
    if run:
        begin = np.zeros(len(shape), np.int32)
        begin[form.layout.axis(axis)] = indices[0]
        size = np.asarray(form.layout.tensor_shape(shape), np.int32)
        code, options = Op.SLICE, schema.SliceOptionsT()
        constants = [ctx.writer.constant("begin", begin), ctx.writer.constant("size", size)]
    else:
        code, options = Op.GATHER, schema.GatherOptionsT()
        options.axis = form.layout.axis(axis)
        constants = [ctx.writer.constant("indices", indices.astype(np.int32))]
    ctx.writer.operator(code, [form.tensor, *constants], [made.tensor], options)
    return made


def expand(ctx: Lowering, node: ir.Node) -> None:
    """Lower Expand, which repeats axes of length 1."""
    source, output = node.inputs[0], node.outputs[0]
    shape = shape_of(output)
    form = unflattened(ctx, ctx.form(source))
    before = (1,) * (len(shape) - len(form.shape)) + form.shape
    form = ctx.reshape(form, before)
    layout = form.layout
    if before == shape:
        ctx.set(output, form)
        return
    target = ctx.writer.constant("shape", np.asarray(layout.tensor_shape(shape), np.int32))
    out = ctx.new(output, layout, form.quant)
    options = schema.BroadcastToOptionsT()
    ctx.writer.operator(Op.BROADCAST_TO, [form.tensor, target], [out], options)


def unflattened(ctx: Lowering, form: Form) -> Form:
    """Return a form whose axes are all its own."""
    form = ctx.padded(form)
    if form.layout.flattened:
        form = ctx.convert(form, plain(len(form.shape)), form.quant)
    return form


def _is_constant(ctx: Lowering, value: ir.Value | None) -> bool:
    return ctx.constant(value) is not None


def joined_quant(ctx: Lowering, node: ir.Node, forms: list[Form]) -> Quant | None:
    """Return the parameters to join with: the ones that users want, or that all inputs have.

    Args:
        ctx: The lowering.
        node: Its output holds values of its inputs.
        forms: Those of the inputs that are not constant.
    """
    found = {form.quant for form in forms}
    if None in found:
        return None
    wanted = ctx.wanted(node.outputs[0])
    if wanted is not None:
        return wanted
    return found.pop() if len(found) == 1 and len(forms) == len(node.inputs) else None


def _joined_layout(forms: list[Form], rank: int) -> Layout:
    if not forms:
        return plain(rank)
    layout = max(forms, key=lambda form: math.prod(form.shape)).layout
    return plain(rank) if layout.flattened else layout


def _joined(
    ctx: Lowering,
    value: ir.Value | None,
    forms: dict[ir.Value | None, Form],
    layout: Layout,
    quant: Quant | None,
) -> int:
    if value in forms:
        return ctx.convert(forms[value], layout, quant).tensor
    array = ctx.constant(value)
    assert array is not None
    arranged = layout.arrange(array.astype(np.float32))
    if quant is None:
        return ctx.writer.constant("part", arranged)
    return ctx.writer.constant("part", quant.codes(arranged), quant)
