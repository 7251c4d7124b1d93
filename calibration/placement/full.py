"""The full placement, for a runtime whose every tensor is int8 or int16 (TFLite).

Source of the fixed and shared parameters: https://ai.google.dev/edge/litert/models/quantization_spec
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir

from ..scheme import QuantParams
from .qdq import Qdq, constant, is_dequantized, known
from .weights import weight_axis

# Operators that take a following ReLU into themselves.
FUSING: Final = frozenset({"Conv", "Gemm", "MatMul", "Add", "Sub", "Mul", "Div"})

# The output has the input's parameters: these only move or choose values.
SAME_PARAMS: Final = frozenset(
    {
        "AveragePool", "DepthToSpace", "Dropout", "Expand", "Flatten", "Gather", "GlobalMaxPool",
        "Identity", "MaxPool", "Pad", "ReduceMax", "ReduceMin", "Reshape", "Resize", "Slice",
        "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
    }
)  # fmt: skip

# Of these, the ones whose every output is one of their inputs' values, or 0.
_MOVING: Final = SAME_PARAMS - {"AveragePool", "Resize"}

# By the codes' width; a symmetric scheme of 8 bits is of no runtime that fixes them. A 16-bit
# Softmax is computed in float32.
FIXED_OUTPUTS: Final = {
    8: {
        "Sigmoid": QuantParams(1 / 256, -128),
        "Softmax": QuantParams(1 / 256, -128),
        "Tanh": QuantParams(1 / 128, 0),
    },
    16: {"Sigmoid": QuantParams(1 / 32768, 0, 16), "Tanh": QuantParams(1 / 32768, 0, 16)},
}

# Operators whose constant operand is a tensor like any other.
_TENSOR_OPERANDS: Final = frozenset({"Add", "Sub", "Mul", "Div", "Concat", "PRelu"})

# Their output holds values of their inputs, brought to its own parameters.
_CHOOSING: Final = frozenset({"Concat", "Max", "Min"})

# What a denominator goes through from where it is computed: a guard against zero, another shape.
_GUARDS: Final = frozenset(
    {
        "Abs", "Add", "Cast", "Clip", "Expand", "Max", "Pow", "Reshape", "Slice", "Split", "Sqrt",
        "Squeeze", "Transpose", "Unsqueeze",
    }
)  # fmt: skip


def place_full(model: ir.Model, qdq: Qdq) -> None:
    """Insert the pairs in place; those that the graph has stay as they are."""
    nodes = list(model.graph)
    left_float = _denominators(nodes)
    values = [
        value for value in points(model) if value not in left_float and _meets_codes(value, qdq)
    ]
    params = _all_params(nodes, values, qdq)
    requantized = [
        (node, index, params[node.outputs[0]])
        for node in nodes
        if node.op_type in _CHOOSING and node.outputs[0] in params and node not in qdq.left
        for index, value in enumerate(node.inputs)
        if value in params and params[value] != params[node.outputs[0]]
    ]
    for node in nodes:
        if node not in qdq.left:
            _quantize_constants(node, qdq)
    for value in values:
        if not _only_quantized(value, qdq):
            qdq.activation(value, params[value])
    for node, index, wanted in requantized:
        qdq.edge(node, index, wanted)


def _meets_codes(value: ir.Value, qdq: Qdq) -> bool:
    """Whether integers make a value, or read it."""
    return qdq.makes_codes(value) or any(use.node not in qdq.left for use in value.uses())


def _only_quantized(value: ir.Value, qdq: Qdq) -> bool:
    """Whether every reader of a value quantizes it, with the same parameters."""
    readers = {node.op_type for node, _ in value.uses()}
    is_output = value.is_graph_output()
    return readers == {"QuantizeLinear"} and not is_output and qdq.given(value) is not None


def _denominators(nodes: list[ir.Node]) -> set[ir.Value]:
    """Return what is divided by, and what that was made of without a product or a sum of many.

    A step of eight bits is as large as a small denominator: its codes would divide by zero.
    """
    found: set[ir.Value] = set()
    waiting = [node.inputs[1] for node in nodes if node.op_type == "Div"]
    while waiting:
        value = waiting.pop()
        producer = value.producer() if value is not None else None
        if value is None or producer is None or value in found:
            continue
        found.add(value)
        if producer.op_type in _GUARDS:
            waiting += producer.inputs
    return found


def _all_params(
    nodes: list[ir.Node], values: list[ir.Value], qdq: Qdq
) -> dict[ir.Value | None, QuantParams]:
    given = _given_params(nodes, qdq)
    params = dict(given)
    bits = qdq.scheme.activation_bits
    fixed = FIXED_OUTPUTS[bits] if bits == 16 or qdq.scheme.activations == "asymmetric" else {}
    for value in values:
        producer = value.producer()
        operator = producer.op_type if producer is not None else ""
        source = producer.inputs[0] if producer is not None and producer.inputs else None
        if value in given:
            continue
        if operator in SAME_PARAMS and source in params:
            params[value] = params[source]
        elif operator in fixed:
            params[value] = fixed[operator]
        else:
            params[value] = qdq.params(value)
    # What only a concatenation reads is made at the concatenation's scale in the first place;
    # the outer of two nested ones decides. What only a Clip reads saturates where the Clip does.
    for node in reversed(nodes):
        if node in qdq.left:
            continue
        if node.op_type in ("Clip", "Concat") and node.outputs[0] in params:
            for source in node.inputs:
                if source in params and source not in given and _can_take(source):
                    params[source] = params[node.outputs[0]]
    return params


def _given_params(nodes: list[ir.Node], qdq: Qdq) -> dict[ir.Value | None, QuantParams]:
    """Return the parameters that the graph came with.

    What goes through nothing but an operator that moves or chooses values on its way to a pair
    takes that pair's parameters: rounding and clipping before is then the same as behind.
    """
    given: dict[ir.Value | None, QuantParams] = {}
    for node in reversed(nodes):
        for value in (*node.outputs, *node.inputs):
            found = qdq.given(value)
            if found is not None:
                given[value] = found
        source = node.inputs[0] if node.inputs else None
        end = node.outputs[0]
        takes = node.op_type in _MOVING and source not in given and _can_take(source)
        if takes and end in given:
            given[source] = given[end]
    return given


def _can_take(value: ir.Value | None) -> bool:
    """Whether a value's parameters are free to be those of the only operator that reads it."""
    if value is None or len(value.uses()) != 1 or value.is_graph_output():
        return False
    producer = value.producer()
    return producer is not None and producer.op_type not in SAME_PARAMS | set(FIXED_OUTPUTS[8])


def _taken_into_next(value: ir.Value) -> bool:
    """Whether the runtime computes this value and the next operator's in one."""
    producer, uses = value.producer(), list(value.uses())
    if producer is None or len(uses) != 1 or value.is_graph_output():
        return False
    reader = uses[0].node
    if producer.op_type in FUSING and _is_fusable_activation(reader):
        return True
    # A linear layer on more than two axes: MatMul by weights, then Add of a bias.
    return (
        producer.op_type == "MatMul"
        and weight_axis(producer) is not None
        and reader.op_type == "Add"
        and _bias_of(reader, value) is not None
    )


def _is_fusable_activation(node: ir.Node) -> bool:
    if node.op_type == "Relu":
        return True
    if node.op_type != "Clip" or len(node.inputs) < 3:
        return False
    bounds = [constant(value) for value in node.inputs[1:3]]
    found = tuple(None if bound is None else float(bound) for bound in bounds)
    return found in {(0.0, 6.0), (-1.0, 1.0)}


def _bias_of(add: ir.Node, product: ir.Value) -> ir.Value | None:
    other = add.inputs[1] if add.inputs[0] is product else add.inputs[0]
    values = known(other)
    return other if values is not None and values.ndim == 1 else None


def _quantize_constants(node: ir.Node, qdq: Qdq) -> None:
    axis = weight_axis(node)
    if axis is not None:
        source = node.inputs[0]
        assert source is not None
        qdq.weights(node, axis=axis, input_range=qdq.range(source))
        return
    if node.op_type not in _TENSOR_OPERANDS or _adds_bias(node):
        return
    for index, value in enumerate(node.inputs):
        values = constant(value)
        if values is not None and values.dtype == np.float32:
            qdq.constant_input(node, index)


def _adds_bias(node: ir.Node) -> bool:
    if node.op_type != "Add":
        return False
    for value in node.inputs:
        producer = value.producer() if value is not None else None
        if value is not None and producer is not None and _taken_into_next(value):
            return producer.op_type == "MatMul" and _bias_of(node, value) is not None
    return False


def points(model: ir.Model) -> list[ir.Value]:
    """Return every value that some scheme may quantize: this placement's, and its superset.

    What a fused operator computes on the way to its activation is none: no runtime has it; nor is
    what a DequantizeLinear gives: its pair has its parameters.
    """
    values = [*model.graph.inputs, *(output for node in model.graph for output in node.outputs)]
    return [
        value
        for value in values
        if value.dtype == ir.DataType.FLOAT
        and not is_dequantized(value)
        and not _taken_into_next(value)
    ]
