"""Reductions over axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.schema_py_generated import BuiltinOperator as Op

from ...nodes import attribute, shape_of
from ..lowering import Lowering
from ..steps import apply, finish, reduced, unquantized

# Reductions that choose a value need no parameters of their own.
_CHOOSING: Final = (Op.REDUCE_MAX, Op.REDUCE_MIN)


def reduce(ctx: Lowering, node: ir.Node, code: int) -> None:
    """Lower ReduceMean, ReduceSum, ReduceMax or ReduceMin."""
    rank = len(shape_of(node.inputs[0]))
    axes = ctx.integers(node, "axes", 1)
    if not axes:
        if attribute(node, "noop_with_empty_axes", 0):
            ctx.set(node.outputs[0], ctx.form(node.inputs[0]))
            return
        axes = list(range(rank))
    _emit(ctx, node, code, [axis % rank for axis in axes], bool(attribute(node, "keepdims", 1)))


def global_pool(ctx: Lowering, node: ir.Node, code: int) -> None:
    """Lower GlobalAveragePool or GlobalMaxPool."""
    _emit(ctx, node, code, list(range(2, len(shape_of(node.inputs[0])))), True)


def _emit(ctx: Lowering, node: ir.Node, code: int, axes: Sequence[int], keep: bool) -> None:
    source, output = node.inputs[0], node.outputs[0]
    form = ctx.padded(ctx.form(source))
    if code in _CHOOSING:
        form = ctx.moved(node, code, form)
        quant = form.quant
    else:
        quant = ctx.int8(node, code, [source], output)
        form = ctx.convert(form, form.layout, form.quant if quant else None)
    layout = form.layout.shortened(axes) if keep else form.layout.without(axes)
    options = schema.ReducerOptionsT()
    options.keepDims = keep
    where = np.asarray(sorted(form.layout.axis(axis) for axis in axes), np.int32)
    inputs = [form.tensor, ctx.writer.constant("axes", where)]
    ctx.writer.operator(code, inputs, [ctx.new(output, layout, quant)], options)


def l2(ctx: Lowering, node: ir.Node) -> None:
    """Lower ReduceL2, the length of vectors."""
    form = unquantized(ctx, node.inputs[0])
    axes = ctx.integers(node, "axes", 1) or list(range(len(form.shape)))
    ctx.count(node, int8=False)
    squares = apply(ctx, Op.MUL, [form, form], form, schema.MulOptionsT())
    sums = reduced(ctx, Op.SUM, squares, axes)
    length = apply(ctx, Op.SQRT, [sums], sums)
    finish(ctx, node.outputs[0], length)
