"""A placed ONNX graph as a list of steps that torch takes: plain data, so that it can be copied."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..calibration.placement.layers import layer_name
from ..calibration.placement.learned import LearnedPlacement
from ..calibration.placement.qdq import constant
from ..core.errors import UnsupportedOperatorError
from .onnx_operators import OPERATORS

_PAIRS: Final = frozenset({"QuantizeLinear", "DequantizeLinear"})
# Constants that learn beside weights and biases of convolutions and products, by operator.
_NORMS: Final = {"LayerNormalization": (1, 2), "InstanceNormalization": (1, 2)}


@dataclass(frozen=True, slots=True)
class Step:
    """One node.

    Attributes:
        operator: Its ONNX name.
        name: The node's.
        inputs: Names; "" where one is left out.
        outputs: Names.
        attributes: As ONNX has them.
        done: What nothing reads after it.
    """

    operator: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    done: tuple[str, ...] = ()


def steps_of(
    placement: LearnedPlacement,
) -> tuple[tuple[Step, ...], dict[str, NDArray[Any]], frozenset[str]]:
    """Return the nodes in their order, the constants that they read, and which of these learn.

    Raises:
        UnsupportedOperatorError: A node is of an operator that is not known.
    """
    steps: list[Step] = []
    constants: dict[str, NDArray[Any]] = {}
    learns: set[str] = set()
    for node in placement.graph:
        pair = node.op_type in _PAIRS
        if not pair and (node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS):
            raise unsupported(node.op_type, _name(node), "this operator")
        sources = [node.inputs[0]] if pair else list(node.inputs)
        names = ["" if value is None else str(value.name) for value in sources]
        for value, name in zip(sources, names, strict=True):
            array = constant(value)
            if array is not None:
                constants[name] = array
        learns |= _learning(node, names, placement)
        if layer_name(node) in placement.weights:
            names[1] = weights_as_codes(layer_name(node))
        steps.append(
            Step(
                operator=node.op_type,
                name=_name(node),
                inputs=tuple(names),
                outputs=tuple(str(value.name) for value in node.outputs),
                attributes={name: _plain(found.value) for name, found in node.attributes.items()
                            if isinstance(found, ir.Attr)},
            )
        )  # fmt: skip
    return _with_ends(steps, str(placement.graph.outputs[0].name)), constants, frozenset(learns)


def weights_as_codes(layer: str) -> str:
    """Return the name under which a layer reads its weights."""
    return f"{layer}: weights as codes"


def sizes_of(graph: ir.Graph) -> dict[str, int]:
    """Return how many numbers each tensor has."""
    values = [*graph.inputs, *(output for node in graph for output in node.outputs)]
    return {
        str(value.name): math.prod(value.shape.numpy())
        for value in values
        if value.shape is not None
    }


def unsupported(operator: str, node: str, found: str) -> UnsupportedOperatorError:
    """Return the error for a node that cannot be trained through."""
    return UnsupportedOperatorError(
        operator=operator,
        node=node,
        found=f"{found}, through which edgecls qat cannot train",
        fix="replace it in the model, or quantize without training: edgecls export --calib DIR",
    )


def first_line(error: Exception) -> str:
    """Return what an error says, in a line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _learning(node: ir.Node, names: list[str], placement: LearnedPlacement) -> set[str]:
    point = placement.weights.get(layer_name(node))
    if point is not None:
        return {point.weights} | ({point.bias} if point.bias is not None else set())
    if node.op_type in _NORMS:
        places = [index for index in _NORMS[node.op_type] if index < len(names)]
    elif node.op_type == "Add" and any(_is_product(value) for value in node.inputs):
        # The bias of a product of tokens: a vector, which stays float.
        places = [index for index, value in enumerate(node.inputs) if _is_vector(value)]
    else:
        return set()
    return {names[index] for index in places if constant(node.inputs[index]) is not None}


def _is_product(value: ir.Value | None) -> bool:
    producer = value.producer() if value is not None else None
    return producer is not None and producer.op_type == "MatMul"


def _is_vector(value: ir.Value | None) -> bool:
    array = constant(value)
    return array is not None and array.ndim == 1 and array.dtype == np.float32


def _with_ends(steps: list[Step], end: str) -> tuple[Step, ...]:
    """Let each step name what was made and is not read again, so that memory is freed."""
    made = {name for step in steps for name in step.outputs} - {end}
    found = []
    for step in reversed(steps):
        read = dict.fromkeys((*step.inputs, *step.outputs))
        done = tuple(name for name in read if name in made)
        made -= set(done)
        found.append(replace(step, done=done))
    return tuple(reversed(found))


def _name(node: ir.Node) -> str:
    return node.name or str(node.outputs[0].name)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | list) else value
