"""Seams: where a factor of a channel can be moved from one constant of a graph into others.

What a convolution, a normalization's scale or a factor for each channel makes is made smaller by a
positive factor; as long as everything that reads it lets the factor through up to a layer with
weights, these take it back. The network computes the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import onnx_ir as ir

from ..placement.qdq import constant

Along: TypeAlias = tuple[str, int]
"""The name of a constant or a value, and the axis of its channels."""

# They keep a positive factor of a channel as it is.
_HOMOGENEOUS: Final = frozenset({"Relu", "LeakyRelu", "PRelu", "Identity"})
_POOLINGS: Final = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool"})
_RESHAPES: Final = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """A layer that takes a factor back.

    Attributes:
        source: What it reads.
        weights: Its weights, along the channels that it reads.
        depthwise: Whether each output reads one channel alone.
    """

    source: Along
    weights: Along
    depthwise: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Seam:
    """Constants that make channels, and all the layers that read these.

    Attributes:
        name: Of the value that the channels are made as.
        made_by: What is divided: the first operand's constants, and what is added behind it.
        readers: Whose weights are multiplied; at least one.
        weighted: Whether the first of ``made_by`` are a convolution's weights.
    """

    name: str
    made_by: tuple[Along, ...]
    readers: tuple[Reader, ...]
    weighted: bool


def find_seams(graph: ir.Graph) -> list[Seam]:
    """Return the seams of a float graph, in its order; no layer takes back two factors.

    There is none where anything else reads the channels (a sum of two values, the graph's outputs,
    an activation that bends), or where a constant has other readers.
    """
    found: list[Seam] = []
    taken: set[Along] = set()
    for node in graph:
        start = _start(node)
        if start is None:
            continue
        axis, made_by = start
        readers: list[Reader] = []
        if not _follow(node.outputs[0], axis, made_by, readers):
            continue
        weights = {reader.weights for reader in readers}
        if not weights & taken:
            taken |= weights
            name = str(node.outputs[0].name)
            found.append(
                Seam(name=name, made_by=tuple(made_by), readers=tuple(readers),
                     weighted=node.op_type == "Conv")
            )  # fmt: skip
    return found


def _start(node: ir.Node) -> tuple[int, list[Along]] | None:
    """Return the axis of the channels that a node makes, and the constants that make them."""
    shape = _shape(node.outputs[0])
    if not shape:
        return None
    if node.op_type in {"Conv", "LayerNormalization"}:
        given = [value for value in node.inputs[1:] if value is not None]
        last = len(shape) - 1
        axis = 1 if node.op_type == "Conv" else last
        whole = all(_own(value) and _shape(value)[0] == shape[axis] for value in given)
        over: int = node.attributes.get_int("axis", -1)  # of a normalization: the first of its axes
        if not whole or over not in {-1, last} or any(one.uses() for one in node.outputs[1:]):
            return None
        return axis, [(str(value.name), 0) for value in given]
    if node.op_type == "Mul":
        for value in node.inputs:
            array = constant(value)
            if value is None or array is None or not _own(value):
                continue
            wide = [axis for axis, size in enumerate(array.shape) if size > 1]
            if len(wide) == 1:
                axis = len(shape) - array.ndim + wide[0]
                return axis, [(str(value.name), wide[0])]
    return None


def _follow(value: ir.Value, axis: int, made_by: list[Along], readers: list[Reader]) -> bool:
    """Collect all that reads channels up to the next weights; False if one is none of these."""
    uses = list(value.uses())
    if value.is_graph_output() or not uses:
        return False
    for use in uses:
        reader = _reader(use.node, axis) if use.idx == 0 else None
        if reader is not None:
            readers.append(reader)
            continue
        behind = _through(use.node, use.idx, axis)
        if behind is None:
            return False
        if use.node.op_type == "Add":
            added = use.node.inputs[1 - use.idx]
            along = _along(added, value, axis)
            if along is None:
                return False
            made_by.append(along)
        if not _follow(use.node.outputs[0], behind, made_by, readers):
            return False
    return True


def _reader(node: ir.Node, axis: int) -> Reader | None:
    """Return the weights of a layer that multiplies these channels by constants of its own."""
    source, operand = node.inputs[0], node.inputs[1] if len(node.inputs) > 1 else None
    if node.op_type not in {"Conv", "Gemm", "MatMul"} or operand is None or not _own(operand):
        return None
    assert source is not None
    shape = _shape(operand)
    depthwise = False
    if node.op_type == "Conv":
        groups: int = node.attributes.get_int("group", 1)
        depthwise = groups > 1 and groups == shape[0] and shape[1] == 1
        if axis != 1 or (groups > 1 and not depthwise):
            return None
        along = 0 if depthwise else 1
    else:
        across: int = node.attributes.get_int("transA", 0)
        if across or len(shape) != 2 or axis != len(_shape(source)) - 1:
            return None
        along = node.attributes.get_int("transB", 0)
    return Reader(
        source=(str(source.name), axis), weights=(str(operand.name), along), depthwise=depthwise
    )


def _through(node: ir.Node, index: int, axis: int) -> int | None:
    """Return the axis of the channels behind a node that lets their factors through."""
    value = node.inputs[index]
    assert value is not None
    before, after = _shape(value), _shape(node.outputs[0])
    if node.op_type in {"Mul", "Add"}:
        other = node.inputs[1 - index]
        fits = constant(other) is not None and len(before) == len(after)
        return axis if fits and before[axis] == after[axis] else None
    if index != 0:
        return None
    if node.op_type in _HOMOGENEOUS or (node.op_type in _POOLINGS and axis == 1):
        return axis
    if node.op_type == "Transpose":
        order = node.attributes.get_ints("perm", tuple(reversed(range(len(before)))))
        return list(order).index(axis)
    if node.op_type in _RESHAPES:
        return _reshaped(before, after, axis)
    if node.op_type in {"ReduceMean", "Slice"}:  # over tokens or places
        axes = _axes(node, len(before))
        if axes is None or axis in axes:
            return None
        dropped = len(before) != len(after)
        return axis - sum(one < axis for one in axes) if dropped else axis
    if node.op_type == "Gather":
        picked = node.attributes.get_int("axis", 0) % len(before)
        if picked == axis:
            return None
        return axis if axis < picked else axis + len(after) - len(before)
    return None


def _reshaped(before: list[int | None], after: list[int | None], axis: int) -> int | None:
    """Return the axis whose index counts the same values in the same order."""
    for place, size in enumerate(after):
        inner, outer = after[place + 1 :], before[axis + 1 :]
        if size is None or size != before[axis] or None in inner or None in outer:
            continue
        if math.prod(n for n in inner if n) == math.prod(n for n in outer if n):
            return place
    return None


def _axes(node: ir.Node, rank: int) -> set[int] | None:
    """Return the axes that a ReduceMean or a Slice is of; None where they are not known."""
    place = 1 if node.op_type == "ReduceMean" else 3
    given = constant(node.inputs[place]) if len(node.inputs) > place else None
    axes = node.attributes.get_ints("axes", ()) if given is None else given.tolist()
    return {axis % rank for axis in axes} or None


def _along(value: ir.Value | None, beside: ir.Value, axis: int) -> Along | None:
    """Return the axis of a constant that has a number for each channel of what stands beside."""
    shape = _shape(value)
    place = axis - len(_shape(beside)) + len(shape)
    if value is None or not _own(value) or place < 0 or shape[place] != _shape(beside)[axis]:
        return None
    return str(value.name), place


def _own(value: ir.Value) -> bool:
    """Whether a value is a constant that one node alone reads."""
    array = constant(value)
    return array is not None and array.dtype == np.float32 and len(value.uses()) == 1


def _shape(value: ir.Value | None) -> list[int | None]:
    """Return a value's sizes, None for a free one."""
    if value is None or value.shape is None:
        return []
    return [size if isinstance(size, int) else None for size in value.shape.dims]
