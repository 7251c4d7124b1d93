"""Operators on two values, element by element, with broadcasting."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.schema_py_generated import BuiltinOperator as Op
from numpy.typing import NDArray

from ...nodes import constant, shape_of
from ..layout import Layout, plain, preferred
from ..lowering import Form, Lowering
from ..quantization import Quant, parameters, shifted_codes
from ..steps import apply, fixed
from ..versions import has_kernel
from .joining import joined_quant


@dataclass(frozen=True, slots=True)
class Binary:
    """A TFLite operator of two inputs.

    Attributes:
        code: The operator.
        options: Makes its options.
        fuses: It takes an activation.
        int8: It has an int8 kernel in which both inputs and the output have their own scales.
    """

    code: int
    options: Callable[[], Any]
    fuses: bool
    int8: bool


# The kernel of a 16-bit addition widens its operands by 15 bits, and aborts the process where it
# would have to widen the sum as well.
_COARSEST: Final = 2.0**14

ADD: Final = Binary(Op.ADD, schema.AddOptionsT, fuses=True, int8=True)
SUB: Final = Binary(Op.SUB, schema.SubOptionsT, fuses=True, int8=True)
MUL: Final = Binary(Op.MUL, schema.MulOptionsT, fuses=True, int8=True)
# Its int8 kernel came late and has no version of its own: an older runtime would take the file and
# fail. And a code of zero, which small divisors have, divides by zero.
DIV: Final = Binary(Op.DIV, schema.DivOptionsT, fuses=True, int8=False)
POW: Final = Binary(Op.POW, schema.PowOptionsT, fuses=False, int8=False)


@dataclass(frozen=True, slots=True, eq=False)
class Codes:
    """A constant operand in int8 or int16."""

    values: NDArray[Any]
    quant: Quant


def binary(ctx: Lowering, node: ir.Node, kind: Binary) -> None:
    """Lower an operator of two inputs and the activation after it."""
    activation, output = ctx.fuse_activation(node) if kind.fuses else (0, node.outputs[0])
    quant = ctx.wanted(output) if kind.int8 else None
    if quant is not None and not _on_codes(ctx, node, kind.code, quant):
        quant = None
    ctx.count(node, int8=quant is not None)
    layout = common_layout(ctx, node)
    inputs = [operand(ctx, value, layout, quant) for value in node.inputs]
    options = kind.options()
    if kind.fuses:
        options.fusedActivationFunction = activation
    ctx.writer.operator(kind.code, inputs, [ctx.new(output, layout, quant)], options)


def extremum(ctx: Lowering, node: ir.Node, code: int) -> None:
    """Lower Max or Min of any number of values.

    TFLite's int8 kernels compare codes, so all values are brought to the output's parameters:
    what these cannot hold is not chosen, or saturates in the output as well.
    """
    output = node.outputs[0]
    computed = [ctx.form(value) for value in node.inputs if ctx.constant(value) is None]
    quant = joined_quant(ctx, node, computed)
    if not has_kernel(code, quant, *(form.quant for form in computed)):
        quant = None
    ctx.count(node, int8=quant is not None)
    layout = common_layout(ctx, node)
    like = Form(-1, (1,) * len(layout.perm), layout, quant)
    forms = []
    for value in node.inputs:
        array = ctx.constant(value)
        if array is not None:
            forms.append(fixed(ctx, array, like))
        else:
            forms.append(ctx.convert(_spread(ctx, value, len(layout.perm)), layout, quant))
    form = forms[0]
    for other in forms[1:]:
        shape = np.broadcast_shapes(like.shape, form.shape, other.shape)
        options = schema.MaximumMinimumOptionsT()
        form = apply(ctx, code, [form, other], replace(like, shape=shape), options)
    ctx.set(output, form)


def common_layout(ctx: Lowering, node: ir.Node) -> Layout:
    """Return the layout of the largest operand that has the output's rank, preferred or not."""
    rank = len(shape_of(node.outputs[0]))
    forms = [
        ctx.padded(ctx.form(value))
        for value in node.inputs
        if ctx.constant(value) is None and len(shape_of(value)) == rank
    ]
    if not forms:
        return plain(rank)
    wish = preferred(rank)
    largest = max(forms, key=lambda form: (math.prod(form.shape), form.layout == wish))
    if largest.layout.flattened and len({form.layout for form in forms}) > 1:
        return plain(rank)
    return largest.layout


def operand(ctx: Lowering, value: ir.Value | None, layout: Layout, quant: Quant | None) -> int:
    """Return an operand's tensor such that it broadcasts in a layout of the output's rank.

    Args:
        ctx: The lowering.
        value: The operand.
        layout: Of the output.
        quant: The output's parameters; None where floats are computed with.
    """
    assert value is not None
    array = ctx.constant(value)
    if array is not None:
        codes = constant_codes(value, array, quant.bits) if quant is not None else None
        # A single number stays one: kernels have a faster path for it.
        name = value.name or "constant"
        if codes is not None:
            return ctx.writer.constant(name, layout.arrange(codes.values), codes.quant)
        return ctx.writer.constant(name, layout.arrange(array.astype(np.float32)))
    form = _spread(ctx, value, len(layout.perm))
    return ctx.convert(form, layout, form.quant if quant is not None else None).tensor


def _spread(ctx: Lowering, value: ir.Value | None, rank: int) -> Form:
    """Return a value's form with axes of length 1 in front, up to ``rank``."""
    form = ctx.padded(ctx.form(value))
    if len(form.shape) < rank:
        form = ctx.reshape(form, (1,) * (rank - len(form.shape)) + form.shape)
    return form


def constant_codes(value: ir.Value, array: NDArray[Any], bits: int) -> Codes | None:
    """Return a constant as codes where that loses nothing: it was quantized, or is one number."""
    producer = value.producer()
    if producer is not None:
        codes = _quantized(producer)
        return codes if codes is not None and codes.quant.bits == bits else None
    if array.size != 1 or not np.isfinite(array).all():
        return None
    number = float(array.flat[0])
    own = number_quant(number, bits)
    return Codes(own.codes(array.astype(np.float32)), own)


def number_quant(number: float, bits: int) -> Quant:
    """Return parameters in which a number is exactly a code: 1 in 8 bits, 2**14 in 16, or 0."""
    code = 1 if bits == 8 else 1 << 14
    return Quant(float(np.float32(abs(number) / code)) or 1.0, 0, bits)


def _quantized(node: ir.Node) -> Codes | None:
    codes, scale = constant(node.inputs[0]), constant(node.inputs[1])
    if codes is None or scale is None or scale.size != 1:
        return None
    shifted = shifted_codes(codes)
    return None if shifted is None else Codes(shifted, parameters(node))


def _on_codes(ctx: Lowering, node: ir.Node, code: int, quant: Quant) -> bool:
    """Say whether every operand has codes of the output's width, at least one of them computed."""
    computed = False
    coarsest = 0.0
    for value in node.inputs:
        assert value is not None
        array = ctx.constant(value)
        if array is not None:
            codes = constant_codes(value, array, quant.bits)
            own = None if codes is None else codes.quant
        else:
            own = ctx.form(value).quant
            computed = True
        if own is None or not has_kernel(code, quant, own):
            return False
        coarsest = max(coarsest, own.scale)
    if quant.bits == 16 and code in (Op.ADD, Op.SUB):
        return computed and coarsest < _COARSEST * quant.scale
    return computed
