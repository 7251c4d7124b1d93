"""Activations: operators on one value, element by element."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.schema_py_generated import ActivationFunctionType as Activation
from ai_edge_litert.schema_py_generated import BuiltinOperator as Op

from ...nodes import attribute, shape_of, unsupported
from ..layout import plain
from ..lowering import Form, Lowering
from ..quantization import LOGISTIC, Quant
from ..steps import apply, finish, fixed, unquantized
from ..versions import has_kernel
from .elementwise import constant_codes, number_quant

_CODES: Final = {
    int(Activation.RELU): Op.RELU,
    int(Activation.RELU6): Op.RELU6,
    int(Activation.RELU_N1_TO_1): Op.RELU_N1_TO_1,
}

# By width, what a relu6 covers.
_RELU6: Final = {
    8: Quant(float(np.float32(6 / 255)), -128),
    16: Quant(float(np.float32(6 / 32767)), 0, 16),
}


_ERF_SLOPE: Final = 0.3275911
_ERF_POLYNOMIAL: Final = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)


@dataclass(frozen=True, slots=True)
class Unary:
    """A TFLite operator of one input that keeps the shape.

    Attributes:
        code: The operator.
        int8: It has an int8 kernel.
        fixed: The only parameters that the kernel gives, by width, if there are such.
    """

    code: int
    int8: bool = False
    fixed: Mapping[int, Quant] | None = None


def unary(ctx: Lowering, node: ir.Node, kind: Unary, options: Any = None) -> None:
    """Lower an operator that works element by element, in the layout that its input has."""
    source, output = node.inputs[0], node.outputs[0]
    quant = None
    if kind.int8:
        quant = ctx.int8(node, kind.code, [source], output, kind.fixed)
    else:
        ctx.count(node, int8=False)
    form = ctx.padded(ctx.form(source))
    data = ctx.convert(form, form.layout, form.quant if quant else None)
    made = kind.fixed[quant.bits] if quant and kind.fixed else quant
    ctx.writer.operator(kind.code, [data.tensor], [ctx.new(output, form.layout, made)], options)


def clip(ctx: Lowering, node: ir.Node) -> None:
    """Lower a Clip that no operator took over."""
    activation = ctx.activation_of(node)
    bounds = ctx.clip_bounds(node)
    if bounds is None:
        raise unsupported(node, "its bounds are computed at run time", "make them constant")
    if activation is not None:
        unary(ctx, node, Unary(_CODES[activation], int8=True))
        return
    source, output = node.inputs[0], node.outputs[0]
    quant = ctx.int8(node, Op.MAXIMUM, [source], output)
    form = ctx.padded(ctx.form(source))
    # Codes of the output saturate; only a bound within their range needs an operator.
    form = ctx.convert(form, form.layout, quant)
    for code, bound, end in ((Op.MAXIMUM, bounds[0], -128), (Op.MINIMUM, bounds[1], 127)):
        if bound is None or (quant and quant.codes(np.asarray(bound, np.float32)) == end):
            continue
        limit = fixed(ctx, bound, form)
        form = apply(ctx, code, [form, limit], form, schema.MaximumMinimumOptionsT())
    ctx.set(output, form)


def softmax(ctx: Lowering, node: ir.Node) -> None:
    """Lower Softmax, which TFLite has over the tensor's last axis."""
    source, output = node.inputs[0], node.outputs[0]
    rank = len(shape_of(source))
    axis = attribute(node, "axis", -1) % rank
    quant = ctx.int8(node, Op.SOFTMAX, [source], output, LOGISTIC)
    form = ctx.padded(ctx.form(source))
    layout = form.layout
    if layout.flattened:
        layout = plain(rank)
    if layout.axis(axis) != rank - 1:
        layout = layout.last(axis)
    data = ctx.convert(form, layout, form.quant if quant else None).tensor
    options = schema.SoftmaxOptionsT()
    options.beta = 1.0
    out = ctx.new(output, layout, LOGISTIC[quant.bits] if quant else None)
    ctx.writer.operator(Op.SOFTMAX, [data], [out], options)


def leaky_relu(ctx: Lowering, node: ir.Node) -> None:
    """Lower LeakyRelu."""
    options = schema.LeakyReluOptionsT()
    options.alpha = attribute(node, "alpha", 0.01)
    unary(ctx, node, Unary(Op.LEAKY_RELU, int8=True), options)


def elu(ctx: Lowering, node: ir.Node) -> None:
    """Lower Elu; TFLite has alpha 1, any other is max(x, 0) plus alpha times elu of min(x, 0)."""
    alpha = attribute(node, "alpha", 1.0)
    if alpha == 1.0:
        unary(ctx, node, Unary(Op.ELU, int8=True))
        return
    ctx.count(node, int8=False)
    form = unquantized(ctx, node.inputs[0])
    zero = fixed(ctx, 0.0, form)
    below = apply(ctx, Op.MINIMUM, [form, zero], form, schema.MaximumMinimumOptionsT())
    curve = apply(ctx, Op.ELU, [below], form)
    scaled = apply(ctx, Op.MUL, [curve, fixed(ctx, alpha, form)], form, schema.MulOptionsT())
    above = apply(ctx, Op.RELU, [form], form)
    ctx.set(node.outputs[0], apply(ctx, Op.ADD, [above, scaled], form, schema.AddOptionsT()))


def negate(ctx: Lowering, node: ir.Node) -> None:
    """Lower Neg; in int8, for which TFLite has no kernel, it is a product with -1."""
    source, output = node.inputs[0], node.outputs[0]
    quant = ctx.int8(node, Op.MUL, [source], output)
    form = ctx.padded(ctx.form(source))
    form = ctx.convert(form, form.layout, form.quant if quant else None)
    out = ctx.new(output, form.layout, quant)
    if quant is None:
        ctx.writer.operator(Op.NEG, [form.tensor], [out], schema.NegOptionsT())
        return
    minus_one = number(ctx, -1.0, quant)
    ctx.writer.operator(Op.MUL, [form.tensor, minus_one], [out], schema.MulOptionsT())


def gelu(ctx: Lowering, node: ir.Node) -> None:
    """Lower Gelu, exact or with its tanh approximation."""
    options = schema.GeluOptionsT()
    mode = attribute(node, "approximate", "none")
    options.approximate = mode == "tanh"
    unary(ctx, node, Unary(Op.GELU, int8=True), options)


def prelu(ctx: Lowering, node: ir.Node) -> None:
    """Lower PRelu with constant slopes."""
    slopes = ctx.constant(node.inputs[1])
    if slopes is None:
        raise unsupported(node, "its slopes are computed at run time", "make them constant")
    source, output = node.inputs[0], node.outputs[0]
    assert node.inputs[1] is not None
    quant = ctx.wanted(output)
    codes = None if quant is None else constant_codes(node.inputs[1], slopes, quant.bits)
    if codes is None or not has_kernel(Op.PRELU, quant, ctx.form(source).quant):
        quant = None
    ctx.count(node, int8=quant is not None)
    form = ctx.padded(ctx.form(source))
    form = ctx.convert(form, form.layout, form.quant if quant else None)
    if codes is not None and quant is not None:
        factors = ctx.writer.constant("slopes", form.layout.arrange(codes.values), codes.quant)
    else:
        factors = fixed(ctx, slopes, form).tensor
    out = ctx.new(output, form.layout, quant)
    ctx.writer.operator(Op.PRELU, [form.tensor, factors], [out])


def hard_sigmoid(ctx: Lowering, node: ir.Node) -> None:
    """Lower HardSigmoid: relu6(6 * (alpha * x + beta)) / 6."""
    alpha, beta = attribute(node, "alpha", 0.2), attribute(node, "beta", 0.5)
    source, output = node.inputs[0], node.outputs[0]
    slope = 6 * alpha
    quant = ctx.wanted(output) if slope > 0 else None
    quant = quant if has_kernel(Op.ADD, quant, ctx.form(source).quant) else None
    ctx.count(node, int8=quant is not None)
    form = ctx.padded(ctx.form(source))
    form = ctx.convert(form, form.layout, form.quant if quant else None)
    if abs(slope - 1) >= 1e-6:
        scaled = form
        if form.quant is not None:
            # The codes stay, their scale takes the slope.
            scaled = replace(form, quant=replace(form.quant, scale=form.quant.scale * slope))
        factor = number(ctx, slope, form.quant)
        form = apply(
            ctx, Op.MUL, [form, replace(form, tensor=factor)], scaled, schema.MulOptionsT()
        )
    options = schema.AddOptionsT()
    options.fusedActivationFunction = Activation.RELU6
    middle = ctx.temporary(
        f"{output.name}_relu6", form.shape, form.layout, _RELU6[quant.bits] if quant else None
    )
    addend = number(ctx, 6 * beta, quant)
    ctx.writer.operator(Op.ADD, [form.tensor, addend], [middle.tensor], options)
    sixth = number(ctx, 1 / 6, quant)
    out = ctx.new(output, form.layout, quant)
    ctx.writer.operator(Op.MUL, [middle.tensor, sixth], [out], schema.MulOptionsT())


def reciprocal(ctx: Lowering, node: ir.Node) -> None:
    """Lower Reciprocal."""
    ctx.count(node, int8=False)
    form = unquantized(ctx, node.inputs[0])
    one = fixed(ctx, 1.0, form)
    finish(ctx, node.outputs[0], apply(ctx, Op.DIV, [one, form], form, schema.DivOptionsT()))


def swish(ctx: Lowering, node: ir.Node) -> None:
    """Lower Swish, x * sigmoid(alpha * x)."""
    ctx.count(node, int8=False)
    form = unquantized(ctx, node.inputs[0])
    alpha = attribute(node, "alpha", 1.0)
    inner = form
    if alpha != 1.0:
        factor = fixed(ctx, alpha, form)
        inner = apply(ctx, Op.MUL, [form, factor], form, schema.MulOptionsT())
    gate = apply(ctx, Op.LOGISTIC, [inner], form)
    finish(ctx, node.outputs[0], apply(ctx, Op.MUL, [form, gate], form, schema.MulOptionsT()))


def erf(ctx: Lowering, node: ir.Node) -> None:
    """Lower Erf, which TFLite has not: sign(x) (1 - t p(t) exp(-x^2)), t = 1 / (1 + c |x|).

    Off by at most 1.5e-7 (Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26).
    """
    ctx.count(node, int8=False)
    form = unquantized(ctx, node.inputs[0])

    def mul(one: Form, other: Form | float) -> Form:
        other = other if isinstance(other, Form) else fixed(ctx, other, form)
        return apply(ctx, Op.MUL, [one, other], form, schema.MulOptionsT())

    def add(one: Form, other: float) -> Form:
        return apply(ctx, Op.ADD, [one, fixed(ctx, other, form)], form, schema.AddOptionsT())

    scaled = add(mul(apply(ctx, Op.ABS, [form], form), _ERF_SLOPE), 1.0)
    share = apply(ctx, Op.DIV, [fixed(ctx, 1.0, form), scaled], form, schema.DivOptionsT())
    tail = add(mul(share, _ERF_POLYNOMIAL[0]), _ERF_POLYNOMIAL[1])
    for coefficient in _ERF_POLYNOMIAL[2:]:
        tail = add(mul(tail, share), coefficient)
    bell = apply(ctx, Op.EXP, [mul(mul(form, form), -1.0)], form)
    size = add(mul(mul(mul(tail, share), bell), -1.0), 1.0)
    # Below 1e-30 the size is 0 to float32.
    sign = apply(ctx, Op.RELU_N1_TO_1, [mul(form, 1e30)], form)
    finish(ctx, node.outputs[0], mul(size, sign))


def softplus(ctx: Lowering, node: ir.Node) -> None:
    """Lower Softplus, log(1 + exp(x))."""
    ctx.count(node, int8=False)
    finish(ctx, node.outputs[0], _softplus(ctx, unquantized(ctx, node.inputs[0])))


def mish(ctx: Lowering, node: ir.Node) -> None:
    """Lower Mish, x * tanh(softplus(x))."""
    ctx.count(node, int8=False)
    form = unquantized(ctx, node.inputs[0])
    gate = apply(ctx, Op.TANH, [_softplus(ctx, form)], form)
    finish(ctx, node.outputs[0], apply(ctx, Op.MUL, [form, gate], form, schema.MulOptionsT()))


def _softplus(ctx: Lowering, form: Form) -> Form:
    """Write max(x, 0) + log(1 + exp(-|x|)), which overflows nowhere."""
    size = apply(ctx, Op.ABS, [form], form)
    small = apply(ctx, Op.EXP, [apply(ctx, Op.NEG, [size], form)], form)
    one = fixed(ctx, 1.0, form)
    sums = apply(ctx, Op.ADD, [small, one], form, schema.AddOptionsT())
    rest = apply(ctx, Op.LOG, [sums], form)
    positive = apply(ctx, Op.RELU, [form], form)
    return apply(ctx, Op.ADD, [positive, rest], form, schema.AddOptionsT())


def number(ctx: Lowering, value: float, quant: Quant | None) -> int:
    """Write one number, as float or as a code of the width of ``quant``."""
    array = np.asarray([value], np.float32)
    if quant is None:
        return ctx.writer.constant("number", array)
    own = number_quant(float(array[0]), quant.bits)
    return ctx.writer.constant("number", own.codes(array), own)
