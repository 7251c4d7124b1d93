"""Operators that move values and compute none: in int8 they keep the codes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.schema_py_generated import BuiltinOperator as Op
from numpy.typing import NDArray

from ...nodes import attribute, optional_input, shape_of, unsupported
from ..layout import plain
from ..lowering import Form, Lowering
from ..quantization import shifted_codes
from .joining import picked, unflattened


def identity(ctx: Lowering, node: ir.Node) -> None:
    """Lower what changes nothing in a classifier at inference."""
    ctx.set(node.outputs[0], ctx.form(node.inputs[0]))


def dropout(ctx: Lowering, node: ir.Node) -> None:
    """Lower Dropout, which does nothing at inference."""
    training = optional_input(node, 2)
    if training is not None:
        value = ctx.constant(training)
        if value is None or value.any():
            raise unsupported(node, "its training mode is on", "export the model in eval mode")
    identity(ctx, node)


def reshape(ctx: Lowering, node: ir.Node) -> None:
    """Lower Reshape, Flatten, Squeeze and Unsqueeze: the output's shape says all."""
    output = node.outputs[0]
    ctx.set(output, ctx.reshape(ctx.form(node.inputs[0]), shape_of(output)))


def transpose(ctx: Lowering, node: ir.Node) -> None:
    """Lower Transpose: another name for the tensor's axes."""
    source, output = node.inputs[0], node.outputs[0]
    rank = len(shape_of(source))
    perm = attribute(node, "perm", tuple(reversed(range(rank))))
    form = unflattened(ctx, ctx.form(source))
    layout = form.layout.transposed([int(axis) for axis in perm])
    form = replace(form, shape=shape_of(output), layout=layout)
    if _is_cut_up(output):
        # Queries, keys and values of an attention: one TRANSPOSE before they are cut, not three.
        form = ctx.convert(form, plain(rank), form.quant)
    ctx.set(output, form)


def _is_cut_up(value: ir.Value) -> bool:
    """Say whether a value of more than four axes is only cut along one of them."""
    users = [use.node for use in value.uses()]
    if len(users) == 1 and users[0].op_type in ("QuantizeLinear", "DequantizeLinear"):
        return _is_cut_up(users[0].outputs[0])
    pieces = sum(len(node.outputs) for node in users)
    cut = all(node.op_type in ("Slice", "Split", "Gather") for node in users)
    return value.shape is not None and len(value.shape) > 4 and cut and pieces > 1


def pad(ctx: Lowering, node: ir.Node) -> None:
    """Lower a constant Pad; a convolution behind it takes zeros over."""
    source, output = node.inputs[0], node.outputs[0]
    rank = len(shape_of(source))
    mode = attribute(node, "mode", b"constant")
    mode = mode.decode() if isinstance(mode, bytes) else mode
    if mode != "constant":
        raise unsupported(node, f"its mode is {mode}", "pad with a constant")
    fill = ctx.constant(optional_input(node, 2))
    if optional_input(node, 2) is not None and fill is None:
        raise unsupported(node, "its value is computed at run time", "make it constant")
    amounts = ctx.integers(node, "pads", 1)
    assert amounts is not None
    axes = ctx.integers(node, "axes", 3) or list(range(rank))
    if min(amounts) < 0:
        raise unsupported(node, f"its pads are {amounts}", "use Slice to cut")
    pads = [(0, 0)] * rank
    for index, axis in enumerate(axes):
        pads[axis % rank] = (amounts[index], amounts[index + len(axes)])
    form = unflattened(ctx, ctx.form(source))
    if source is not None and source.dtype is not None and source.dtype.is_integer():
        _pad_codes(ctx, node, form, pads, fill)
        return
    if fill is None or not fill.any():
        ctx.set(output, replace(form, pads=tuple(pads)))
        return
    # Where the users round the result to the same codes, they round the constant too.
    quant = form.quant if form.quant is not None and ctx.wanted(output) == form.quant else None
    form = ctx.convert(form, form.layout, quant)
    amount = fill.reshape(1).astype(np.float32)
    _fill(ctx, node, form, pads, amount if quant is None else quant.codes(amount))


def _pad_codes(
    ctx: Lowering,
    node: ir.Node,
    form: Form,
    pads: list[tuple[int, int]],
    fill: NDArray[Any] | None,
) -> None:
    """Lower a Pad between Q and DQ: what it fills with is a code, of the graph's type."""
    source, quant = node.inputs[0], form.quant
    assert source is not None
    assert source.dtype is not None
    codes = np.zeros(1, source.dtype.numpy()) if fill is None else fill.reshape(1)
    shifted = shifted_codes(codes)
    if quant is None or shifted is None:
        raise unsupported(node, f"it pads {codes.dtype}", "pad what is not quantized yet")
    if int(shifted[0]) == quant.zero_point:
        ctx.set(node.outputs[0], replace(form, pads=tuple(pads)))
        return
    _fill(ctx, node, ctx.padded(form), pads, shifted)


def _fill(
    ctx: Lowering, node: ir.Node, form: Form, pads: list[tuple[int, int]], value: NDArray[Any]
) -> None:
    """Write a PADV2, which fills with ``value`` in the form's own type."""
    ctx.count(node, int8=form.quant is not None)
    amount = ctx.writer.constant("fill", value, form.quant)
    widths = np.asarray([pads[axis] for axis in form.layout.perm], np.int32)
    inputs = [form.tensor, ctx.writer.constant("pads", widths), amount]
    out = ctx.new(node.outputs[0], form.layout, form.quant)
    ctx.writer.operator(Op.PADV2, inputs, [out], schema.PadV2OptionsT())


def slice_(ctx: Lowering, node: ir.Node) -> None:
    """Lower Slice to SLICE, or STRIDED_SLICE where it steps."""
    source, output = node.inputs[0], node.outputs[0]
    shape = shape_of(source)
    rank = len(shape)
    starts, ends = ctx.integers(node, "starts", 1), ctx.integers(node, "ends", 2)
    assert starts is not None
    assert ends is not None
    axes = ctx.integers(node, "axes", 3) or list(range(len(starts)))
    steps = ctx.integers(node, "steps", 4) or [1] * len(starts)
    begin, stride = [0] * rank, [1] * rank
    form = unflattened(ctx, ctx.form(source))
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step < 0:
            # STRIDED_SLICE has no end before the first position: they are picked one by one.
            where = np.arange(shape[axis])[slice(start, max(end, -shape[axis] - 1), step)]
            form = picked(ctx, f"{output.name}_back", form, axis % rank, where)
            continue
        begin[axis] = slice(start, None, step).indices(shape[axis])[0]
        stride[axis] = step
    size = shape_of(output)
    if form.shape == size:
        ctx.set(output, form)
        return
    perm = list(form.layout.perm)
    first = np.asarray(begin, np.int32)[perm]
    extent, step_by = np.asarray(size, np.int32)[perm], np.asarray(stride, np.int32)[perm]
    out = ctx.new(output, form.layout, form.quant)
    constants = [ctx.writer.constant("begin", first)]
    if (step_by == 1).all():
        constants.append(ctx.writer.constant("size", extent))
        ctx.writer.operator(Op.SLICE, [form.tensor, *constants], [out], schema.SliceOptionsT())
        return
    last = first + (extent - 1) * step_by + 1
    constants += [ctx.writer.constant("end", last), ctx.writer.constant("strides", step_by)]
    options = schema.StridedSliceOptionsT()
    ctx.writer.operator(Op.STRIDED_SLICE, [form.tensor, *constants], [out], options)
