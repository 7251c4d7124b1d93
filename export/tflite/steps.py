"""Steps of operators that TFLite has only as a composition of others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from ..nodes import shape_of
from .lowering import Form, Lowering


def unquantized(ctx: Lowering, value: ir.Value | None) -> Form:
    """Return a value as float32, in the layout that it has."""
    form = ctx.padded(ctx.form(value))
    return ctx.convert(form, form.layout, None)


def apply(
    ctx: Lowering, code: int, inputs: Sequence[Form], like: Form, options: Any = None
) -> Form:
    """Write an operator whose output has the shape, the layout and the type of ``like``."""
    name = ctx.writer.tensors[inputs[0].tensor].name
    made = ctx.temporary(f"{name}_step", like.shape, like.layout, like.quant)
    ctx.writer.operator(code, [form.tensor for form in inputs], [made.tensor], options)
    return made


def fixed(ctx: Lowering, array: Any, like: Form) -> Form:
    """Write a constant that broadcasts with ``like``, in its type."""
    values: NDArray[np.float32] = np.asarray(array, np.float32)
    arranged = like.layout.arrange(values) if values.ndim else values
    if like.quant is None:
        tensor = ctx.writer.constant("constant", arranged)
    else:
        tensor = ctx.writer.constant("constant", like.quant.codes(arranged), like.quant)
    return Form(tensor, values.shape, like.layout, like.quant)


def reduced(ctx: Lowering, code: int, form: Form, axes: Sequence[int]) -> Form:
    """Write a reduction that keeps its axes."""
    rank = len(form.shape)
    positive = sorted(axis % rank for axis in axes)
    shape = tuple(1 if axis in positive else size for axis, size in enumerate(form.shape))
    name = f"{ctx.writer.tensors[form.tensor].name}_reduced"
    made = ctx.temporary(name, shape, form.layout.shortened(positive), None)
    where = np.asarray(sorted(form.layout.axis(axis) for axis in positive), np.int32)
    options = schema.ReducerOptionsT()
    options.keepDims = True
    inputs = [form.tensor, ctx.writer.constant("axes", where)]
    ctx.writer.operator(code, inputs, [made.tensor], options)
    return made


def finish(ctx: Lowering, output: ir.Value, form: Form) -> None:
    """Say that a form holds ``output``, whose axes of length 1 may have been dropped."""
    form = ctx.reshape(form, shape_of(output))
    ctx.writer.rename(form.tensor, output.name or "value")
    ctx.set(output, form)
