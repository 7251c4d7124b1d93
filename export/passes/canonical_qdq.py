"""Brings Q/DQ from any exporter into the one form that placement, lowering and TensorRT read.

Nothing changes by more than a name: every code and every scale stays what it was.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import PassResult, common
from onnxscript.optimizer import fold_constants

from ...core.errors import GraphError
from ..nodes import constant, dequantized, node_name, optional_input, unsupported
from .canonical_form import QDQ, WEIGHTED, has_private_codes, outside_canonical_form
from .constants import add_constant
from .contract import GraphPass

_CODES: Final = frozenset({"INT8", "UINT8", "INT16", "UINT16"})

_UNSIGNED: Final = (np.uint8, np.uint16)

# Their outputs are never negative.
_NOT_NEGATIVE: Final = frozenset({"Relu", "Sigmoid", "Softmax", "HardSigmoid", "Abs"})

# Their outputs are values, or means of values, of their input.
_WITHIN_INPUT: Final = frozenset(
    {"AveragePool", "Flatten", "GlobalAveragePool", "GlobalMaxPool", "Identity", "MaxPool",
     "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
)  # fmt: skip


class CanonicalQdq(GraphPass):
    """Brings Q/DQ into one form; the same values, exactly.

    Constants that are computed (weights behind a QuantizeLinear, a Clip on their codes, an
    Identity) are codes; a Transpose of dequantized weights is one of their codes; unsigned codes
    are signed (uint8 ones 128 lower, uint16 ones 32768); zero points are written out; a Clip of
    codes between Q and DQ that no code reaches is gone.

    Raises:
        UnsupportedOperatorError: Quantization of another kind: scales that are computed, per block
            or of another type than float32; codes of another width than 8 or, of activations, 16
            bits; asymmetric weights; activations per channel; a Clip of codes that changes some.
        GraphError: Its constants cannot be computed.
    """

    # ONNX has Q/DQ since.
    oldest_opset = 10

    def call(self, model: ir.Model) -> PassResult:
        """Bring Q/DQ into the form."""
        graph = model.graph
        _compute_constants(model)
        for node in list(graph):
            if node.op_type == "Clip":
                _remove_clip(graph, node)
        for node in list(graph):
            if node.op_type == "QuantizeLinear":
                _requantize_constant(graph, node)
        for node in [node for node in graph if node.op_type in QDQ]:
            _check(node)
            _write_out_zero_point(graph, node)
        for node in list(graph):
            if node.op_type == "DequantizeLinear" and constant(node.inputs[0]) is not None:
                _transpose_codes(graph, node)
                _shift_constant(graph, node)
            elif node.op_type == "QuantizeLinear":
                _shift_activation(graph, node)
        for node in graph:
            if node.op_type in WEIGHTED:
                _check_weights(node)
        common.RemoveUnusedNodesPass()(model)
        return PassResult(model, modified=True)

    def ensures(self, model: ir.Model) -> None:
        """Every Q/DQ is in the form."""
        self.promise("canonical Q/DQ", outside_canonical_form(model.graph))


def _compute_constants(model: ir.Model) -> None:
    try:
        common.RemoveInitializersFromInputsPass()(model)
        lift = common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)
        lift(model)
        fold_constants(
            model,
            input_size_limit=1 << 40,
            output_size_limit=1 << 30,
            should_fold=lambda node: node.op_type != "DequantizeLinear",
        )
        lift(model)
        common.IdentityEliminationPass()(model)
        common.RemoveUnusedNodesPass()(model)
    except Exception as error:  # the passes raise whatever onnx's inference raises
        raise GraphError(f"the constants of the quantized graph cannot be computed: {error}") from (
            error
        )


def _check(node: ir.Node) -> None:
    """Raise for what is no plain quantization to 8 or 16 bits."""
    source, scale = node.inputs[0], constant(node.inputs[1])
    is_constant = constant(source) is not None
    if scale is None:
        raise unsupported(
            node, "its scale is computed at run time (dynamic quantization)",
            "calibrate with images: quantize statically",
        )  # fmt: skip
    if scale.dtype != np.float32:
        raise unsupported(
            node, f"its scale is {scale.dtype}", "quantize the float32 model, not a cast of it"
        )
    if not np.isfinite(scale).all() or not (scale > 0).all():
        worst = scale[~(scale > 0)] if (~(scale > 0)).any() else scale[~np.isfinite(scale)]
        raise unsupported(
            node, f"expected positive scales, found {worst.flat[0]}", "calibrate the model again"
        )
    if scale.ndim > 1 or node.attributes.get_int("block_size", 0) != 0:
        raise unsupported(node, "its scales are per block", "quantize weights per channel")
    if scale.size > 1 and not is_constant:
        raise unsupported(
            node, "its activation has a scale per channel", "quantize activations per tensor"
        )
    codes = node.outputs[0] if node.op_type == "QuantizeLinear" else source
    assert codes is not None
    kind = _codes_type(node, codes)
    # A bias is int32 at (input scale * weight scale).
    allowed = _CODES | {"INT32"} if is_constant else _CODES
    if kind not in allowed:
        fix = "quantize to 8 bits (int8; activations also to uint8, int16 or uint16)"
        raise unsupported(node, f"its codes are {kind.lower()}", fix)
    if len(node.inputs) > 2 and node.inputs[2] is not None and constant(node.inputs[2]) is None:
        raise unsupported(node, "its zero point is computed at run time", "quantize statically")


def _codes_type(node: ir.Node, codes: ir.Value) -> str:
    zero_point = node.inputs[2] if len(node.inputs) > 2 else None
    for value in (zero_point, codes):
        if value is not None and value.const_value is not None:
            return value.const_value.dtype.name
        if value is not None and value.dtype is not None:
            return value.dtype.name
    if node.op_type == "DequantizeLinear":
        producer = codes.producer()
        if producer is not None and producer.op_type == "QuantizeLinear":
            return _codes_type(producer, codes)
    return "UINT8"  # ONNX's default of a QuantizeLinear without zero point


def _write_out_zero_point(graph: ir.Graph, node: ir.Node) -> None:
    """Give a node its zero point, and an activation's scale and zero point the shape ()."""
    scale = constant(node.inputs[1])
    assert scale is not None
    codes = node.outputs[0] if node.op_type == "QuantizeLinear" else node.inputs[0]
    assert codes is not None
    dtype = ir.DataType[_codes_type(node, codes)].numpy()
    zero_point = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if zero_point is None:
        zero_point = np.zeros(scale.shape, dtype)
    elif constant(node.inputs[0]) is None:
        zero_point = zero_point.reshape(())
    elif zero_point.shape != scale.shape:
        zero_point = np.broadcast_to(zero_point.ravel(), scale.size).reshape(scale.shape)
    if constant(node.inputs[0]) is None and scale.shape != ():
        scale, zero_point = scale.reshape(()), zero_point.reshape(())
        _set_input(graph, node, 1, scale)
    _set_input(graph, node, 2, zero_point)
    node.attributes.pop("output_dtype", None)


def _requantize_constant(graph: ir.Graph, node: ir.Node) -> None:
    """Turn Q(DQ(codes)), per tensor, into the codes that it computes."""
    producer = node.inputs[0].producer() if node.inputs[0] is not None else None
    if producer is None or producer.op_type != "DequantizeLinear":
        return
    own, scale = constant(producer.inputs[1]), constant(node.inputs[1])
    if own is None or scale is None or own.size != 1 or scale.size != 1:
        return
    values, zero_point = dequantized(producer), constant(optional_input(node, 2))
    if values is None:
        return
    limits = np.iinfo(np.uint8 if zero_point is None else zero_point.dtype)
    shift = 0 if zero_point is None else int(zero_point.flat[0])
    found = np.rint(values.astype(np.float32) / scale) + shift
    made = add_constant(
        graph, f"{node_name(node)}_constant", np.clip(found, limits.min, limits.max), limits.dtype
    )
    made.type = ir.TensorType(ir.DataType.from_numpy(limits.dtype))
    ir.convenience.replace_all_uses_with(node.outputs[0], made)
    graph.remove(node, safe=True)


def _transpose_codes(graph: ir.Graph, node: ir.Node) -> None:
    """Turn Transpose(DQ(codes)) into DQ(Transpose(codes))."""
    for use in list(node.outputs[0].uses()):
        user = use.node
        codes, scale = constant(node.inputs[0]), constant(node.inputs[1])
        assert codes is not None
        assert scale is not None
        if user.op_type != "Transpose" or user.outputs[0].is_graph_output():
            continue
        default = tuple(reversed(range(codes.ndim)))
        perm = [int(axis) for axis in user.attributes.get_ints("perm", default)]
        attributes = {}
        if scale.ndim:
            axis = node.attributes.get_int("axis", 1) % codes.ndim
            attributes["axis"] = perm.index(axis)
        end = user.outputs[0]
        transposed = ir.Value(
            name=f"{end.name}_dequantized", type=ir.TensorType(ir.DataType.FLOAT), shape=end.shape
        )
        made = ir.node(
            "DequantizeLinear",
            [
                add_constant(graph, f"{end.name}_codes", codes.transpose(perm), codes.dtype),
                *node.inputs[1:],
            ],
            attributes,
            outputs=[transposed],
            name=f"{node.name or node.outputs[0].name}_transposed",
        )
        graph.insert_before(user, made)
        ir.convenience.replace_all_uses_with(end, transposed)
        graph.remove(user, safe=True)
        _shift_constant(graph, made)


def _shift_constant(graph: ir.Graph, node: ir.Node) -> None:
    """Turn a constant's unsigned codes into signed ones."""
    codes, zero_point = constant(node.inputs[0]), constant(node.inputs[2])
    if codes is None or zero_point is None or codes.dtype not in _UNSIGNED:
        return
    _set_input(graph, node, 0, _shifted(codes))
    _set_input(graph, node, 2, _shifted(zero_point))


def _shift_activation(graph: ir.Graph, node: ir.Node) -> None:
    """Turn the unsigned codes of a QuantizeLinear and all its DequantizeLinear into signed ones."""
    zero_point, codes = constant(node.inputs[2]), node.outputs[0]
    if zero_point is None or zero_point.dtype not in _UNSIGNED or not has_private_codes(node):
        return
    shifted = _shifted(zero_point)
    codes.type = ir.TensorType(ir.DataType.from_numpy(shifted.dtype))
    _set_input(graph, node, 2, shifted)
    for user in [use.node for use in codes.uses()]:
        own = constant(user.inputs[2])
        assert own is not None
        _set_input(graph, user, 2, _shifted(own))


def _shifted(codes: NDArray[Any]) -> NDArray[Any]:
    signed = np.dtype(f"int{8 * codes.dtype.itemsize}")
    return (codes.astype(np.int32) + np.iinfo(signed).min).astype(signed)


def _remove_clip(graph: ir.Graph, node: ir.Node) -> None:
    """Remove a Clip of codes, which must change none of them.

    Raises:
        UnsupportedOperatorError: It does.
    """
    source = node.inputs[0]
    quantize = source.producer() if source is not None else None
    if source is None or quantize is None or quantize.op_type != "QuantizeLinear":
        return
    zero_point, scale = constant(optional_input(quantize, 2)), constant(quantize.inputs[1])
    if zero_point is None or scale is None or zero_point.size != 1 or scale.size != 1:
        raise unsupported(node, "it clips codes of an unknown grid", "leave the Clip out")
    limits = np.iinfo(zero_point.dtype)
    bounds = [constant(optional_input(node, index)) for index in (1, 2)]
    lowest = _lowest(quantize.inputs[0]) / float(scale.flat[0]) + int(zero_point.flat[0])
    reachable = max(int(np.rint(max(lowest, limits.min))), int(limits.min)), int(limits.max)
    lo = limits.min if bounds[0] is None else int(bounds[0].flat[0])
    hi = limits.max if bounds[1] is None else int(bounds[1].flat[0])
    if lo > reachable[0] or hi < reachable[1]:
        raise unsupported(
            node,
            f"it clips codes {reachable[0]}..{reachable[1]} to {lo}..{hi}",
            "quantize activations with the whole range of 8 bits (narrow_range=False, bit_width=8)",
        )
    ir.convenience.replace_all_uses_with(node.outputs[0], source)
    graph.remove(node, safe=True)


def _lowest(value: ir.Value | None) -> float:
    """Return a number that no element of a value is below."""
    node = value.producer() if value is not None else None
    if node is None:
        return float("-inf")
    if node.op_type in _NOT_NEGATIVE:
        return 0.0
    if node.op_type == "Clip":
        bound = constant(optional_input(node, 1))
        return float("-inf") if bound is None else float(bound.flat[0])
    return _lowest(node.inputs[0]) if node.op_type in _WITHIN_INPUT else float("-inf")


def _check_weights(node: ir.Node) -> None:
    """Raise where a node's dequantized weights are asymmetric or wider than 8 bits."""
    value = optional_input(node, 1)
    producer = value.producer() if value is not None else None
    if producer is None or producer.op_type != "DequantizeLinear":
        return
    codes, zero_point = constant(producer.inputs[0]), constant(producer.inputs[2])
    if codes is None or zero_point is None:
        return
    if codes.dtype.itemsize != 1:
        raise unsupported(
            producer,
            f"the weights of {node.op_type} {node_name(node)!r} are {codes.dtype}",
            "quantize weights symmetrically to int8",
        )
    if zero_point.any():
        raise unsupported(
            producer,
            f"the weights of {node.op_type} {node_name(node)!r} are asymmetric "
            f"(zero point {int(zero_point[zero_point != 0].flat[0])}, as int8)",
            "quantize weights symmetrically to int8 (zero point 0)",
        )


def _set_input(graph: ir.Graph, node: ir.Node, index: int, array: NDArray[Any]) -> None:
    """Make a constant an input of a node, under a name of its own."""
    old = optional_input(node, index)
    known = constant(old)
    if known is not None and known.dtype == array.dtype and np.array_equal(known, array):
        return
    suffix = ("codes", "scale", "zero_point")[index]
    value = add_constant(graph, f"{node_name(node)}_{suffix}", array, array.dtype)
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, value)
