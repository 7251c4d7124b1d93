"""Pooling over windows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.schema_py_generated import BuiltinOperator as Op
from numpy.typing import NDArray

from ...nodes import attribute, shape_of, unsupported
from ..layout import NHWC, Shape
from ..lowering import Form, Lowering
from ..quantization import Quant, finer
from ..steps import apply, finish, fixed
from ..windows import Window, as_image, image_shape, surround


def max_pool(ctx: Lowering, node: ir.Node) -> None:
    """Lower MaxPool; padding is the lowest value there is."""
    window = _window(node)
    if window.dilations != (1, 1):
        raise unsupported(node, f"its dilations are {window.dilations}", "use a dense window")
    if len(node.outputs) > 1 and node.outputs[1].uses():
        raise unsupported(node, "its indices are used", "use only its maximum")
    window = _with_ceil(node, window)
    form = as_image(ctx, ctx.form(node.inputs[0]))
    form = ctx.convert(form, NHWC, form.quant)
    same = window.is_same(form.shape[2:])
    if not same:
        form = _pad_lowest(ctx, form, window, zero=_not_negative(ctx, node.inputs[0]))
    finish(ctx, node.outputs[0], _pool(ctx, node, Op.MAX_POOL_2D, form, window, same=same))


def average_pool(ctx: Lowering, node: ir.Node) -> None:
    """Lower AveragePool, where zeros around the image may count or not."""
    window = _window(node)
    if window.dilations != (1, 1):
        raise unsupported(node, f"its dilations are {window.dilations}", "use a dense window")
    source, output = node.inputs[0], node.outputs[0]
    if window == Window((1, 1), (1, 1), (1, 1), ((0, 0), (0, 0))):
        # What an adaptive pooling becomes that has the wanted size already.
        ctx.set(output, ctx.form(source))
        return
    sizes, positions = image_shape(shape_of(source))[2:], image_shape(shape_of(output))[2:]
    include = bool(attribute(node, "count_include_pad", 0))
    full = _with_ceil(node, window)
    # TFLite's SAME leaves padding out of the count.
    same = full.is_same(sizes) and not (include and any(map(any, window.pads)))
    share = _share(window, sizes, positions, include=include)
    exact = same or bool((share == 1).all())
    form = ctx.form(source)
    quant, wanted = form.quant, ctx.wanted(output)
    if quant is not None and (not exact or wanted is None or finer(wanted, quant)):
        quant = None
    ctx.count(node, int8=quant is not None)
    form = ctx.convert(as_image(ctx, form), NHWC, quant)
    form = form if same else surround(ctx, form, full)
    made = _pool(ctx, node, Op.AVERAGE_POOL_2D, form, full, same=same)
    if not exact:
        made = apply(ctx, Op.MUL, [made, fixed(ctx, share, made)], made, schema.MulOptionsT())
    finish(ctx, output, made)


def _window(node: ir.Node) -> Window:
    kernel = [int(size) for size in attribute(node, "kernel_shape", ())]
    if len(kernel) not in (1, 2):
        raise unsupported(node, f"its window has {len(kernel)} axes", "use 1-D or 2-D pooling")
    height, width = (1, *kernel)[-2:]
    return Window.of(node, (height, width))


def _with_ceil(node: ir.Node, window: Window) -> Window:
    """Return the window with the pads after the image that its last positions need."""
    source, output = (image_shape(shape_of(v)) for v in (node.inputs[0], node.outputs[0]))
    pads = []
    for axis in (0, 1):
        before, after = window.pads[axis]
        if (output[2 + axis] - 1) * window.strides[axis] >= source[2 + axis] + before:
            # Runtimes leave this position out, the rule for shapes does not.
            raise unsupported(
                node, "its last window has no pixel of the image", "set ceil_mode to 0"
            )
        needed = (output[2 + axis] - 1) * window.strides[axis] + window.extent(axis)
        # A last position beyond the padding is one that ceil_mode added.
        pads.append((before, max(after, needed - before - source[2 + axis])))
    return replace(window, pads=(pads[0], pads[1]))


def _share(window: Window, sizes: Shape, positions: Shape, *, include: bool) -> NDArray[np.float32]:
    """Return, for each position, the window's size over the number of pixels that count."""
    counts = []
    for axis in (0, 1):
        (before, after), size = window.pads[axis], sizes[axis]
        starts = np.arange(positions[axis]) * window.strides[axis] - before
        low, high = (-before, size + after) if include else (0, size)
        ends = np.minimum(starts + window.kernel[axis], high)
        counts.append(ends - np.maximum(starts, low))
    total = window.kernel[0] * window.kernel[1]
    return (total / np.outer(counts[0], counts[1])).astype(np.float32)


def _not_negative(ctx: Lowering, value: ir.Value | None) -> bool:
    """Say whether a value comes from an operator that gives nothing below zero."""
    node = value.producer() if value is not None else None
    if node is not None and node.op_type == "Clip":
        bounds = ctx.clip_bounds(node)
        return bounds is not None and bounds[0] is not None and bounds[0] >= 0
    return node is not None and node.op_type in ("Relu", "Sigmoid", "HardSigmoid", "Softmax")


def _pad_lowest(ctx: Lowering, form: Form, window: Window, *, zero: bool) -> Form:
    """Surround an image with what no maximum chooses; ``zero`` says that zero is such."""
    if not any(map(any, window.pads)):
        return form
    if zero or (form.quant is not None and form.quant.zero_point == form.quant.lowest):
        # An ordinary PAD, which more runtimes accelerate.
        return surround(ctx, form, window)
    pads = ((0, 0), (0, 0), *window.pads)
    lowest = _lowest(ctx, form.quant)
    shape = tuple(s + sum(p) for s, p in zip(form.shape, pads, strict=True))
    name = f"{ctx.writer.tensors[form.tensor].name}_pad"
    made = ctx.temporary(name, shape, form.layout, form.quant)
    amounts = ctx.writer.constant("pads", np.asarray([pads[a] for a in NHWC.perm], np.int32))
    ctx.writer.operator(
        Op.PADV2, [form.tensor, amounts, lowest], [made.tensor], schema.PadV2OptionsT()
    )
    return made


def _lowest(ctx: Lowering, quant: Quant | None) -> int:
    if quant is None:
        return ctx.writer.constant("lowest", np.asarray([np.finfo(np.float32).min], np.float32))
    return ctx.writer.constant("lowest", np.asarray([quant.lowest], quant.dtype), quant)


def _pool(
    ctx: Lowering, node: ir.Node, code: int, form: Form, window: Window, *, same: bool
) -> Form:
    """Write the pooling of an image; in int8 it keeps the parameters."""
    output = node.outputs[0]
    made = ctx.temporary(str(output.name), image_shape(shape_of(output)), NHWC, form.quant)
    options: Any = schema.Pool2DOptionsT()
    options.padding = schema.Padding.SAME if same else schema.Padding.VALID
    options.strideH, options.strideW = window.strides
    options.filterHeight, options.filterWidth = window.kernel
    ctx.writer.operator(code, [form.tensor], [made.tensor], options)
    return made
