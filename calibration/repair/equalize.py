"""Cross-layer equalization: channels between two layers are scaled to use the codes alike.

ReLU lets a positive factor through, so a channel can be made smaller by one layer and larger again
by the next: the network computes the same. Weights have a scale for each output channel here, so
that the first layer's factors cost nothing; the activations between have one scale for all, and a
dense second layer one for all its inputs. So a channel is divided by the square root of (its
largest value / the second layer's largest weight for it), by its largest value where the second
layer is depthwise, and the channels' mean factor stays one.

Where weights have one scale for all, it is they that are balanced: a channel is divided by the
square root of (its largest weight in the first layer / in the second).

Source: Nagel et al. 2019, arXiv:1906.04721, section 4.1: the latter.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import numpy_helper

from ...core.values import Granularity, Tensor
from ..placement.qdq import constant
from .moments import Reals, values_of_images

_LARGEST_FACTOR: Final = 2.0**8  # biases and weights stay well inside FP16

# They keep a positive factor of a channel as it is.
_HOMOGENEOUS: Final = frozenset({"Relu", "LeakyRelu", "PRelu", "MaxPool", "AveragePool",
                                 "GlobalAveragePool", "Identity"})  # fmt: skip


def equalized(
    model: onnx.ModelProto, tensors: Iterable[Tensor], granularity: Granularity = "per_channel"
) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Return the graph with equalized channels, which computes the same, and what was scaled.

    Args:
        model: The float graph, BatchNormalization folded; not changed.
        tensors: Images that show how large channels get, shape (1, C, H, W) each.
        granularity: Of the weights' scales.

    Returns:
        The graph, and the names of the values between the layers; none where no two layers follow
        each other through ReLU alone. Ranges have to be measured again.
    """
    graph = ir.from_proto(model).graph
    pairs = [found for node in graph for found in [_pair(node)] if found is not None]
    if not pairs:
        return model, ()
    names = [str(first.outputs[0].name) for first, _ in pairs]
    ends = [str(second.inputs[0].name) for _, second in pairs if second.inputs[0] is not None]
    largest: dict[str, Reals] = {}
    for values in values_of_images(model, ends, tensors):
        for end in ends:
            seen = np.abs(values[end][0]).max((1, 2)).astype(np.float64)
            largest[end] = np.maximum(largest.get(end, 0.0), seen)
    arrays = {item.name: numpy_helper.to_array(item).copy() for item in model.graph.initializer}
    for (first, second), end in zip(pairs, ends, strict=True):
        if granularity == "per_tensor":
            largest[end] = np.abs(arrays[_weights(first)]).max((1, 2, 3)).astype(np.float64)
        _scale(arrays, first, second, largest[end], granularity)
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for item in made.graph.initializer:
        item.CopyFrom(numpy_helper.from_array(arrays[item.name], item.name))
    return made, tuple(names)


def _pair(first: ir.Node) -> tuple[ir.Node, ir.Node] | None:
    """Return two convolutions with nothing but ReLU or the like between, read by nobody else."""
    if not _own_weights(first):
        return None
    value = first.outputs[0]
    while True:
        uses = list(value.uses())
        if len(uses) != 1 or uses[0].idx != 0 or value.is_graph_output():
            return None
        reader = uses[0].node
        if reader.op_type == "Conv":
            return (first, reader) if _own_weights(reader) else None
        if reader.op_type not in _HOMOGENEOUS:
            return None
        value = reader.outputs[0]


def _own_weights(node: ir.Node) -> bool:
    """Whether a node is a convolution of images, dense or depthwise, with its own constants."""
    weights = constant(node.inputs[1]) if node.op_type == "Conv" else None
    if weights is None or weights.ndim != 4 or weights.dtype != np.float32:
        return False
    given = [value for value in node.inputs[1:] if value is not None]
    if any(constant(value) is None or len(value.uses()) > 1 for value in given):
        return False
    groups = node.attributes.get_int("group", 1)
    return groups == 1 or (weights.shape[1] == 1 and groups == weights.shape[0])


def _weights(node: ir.Node) -> str:
    return str(node.inputs[1].name) if node.inputs[1] else ""


def _scale(
    arrays: dict[str, NDArray[np.float32]],
    first: ir.Node,
    second: ir.Node,
    largest: Reals,
    granularity: Granularity,
) -> None:
    name = _weights(second)
    weights = arrays[name]
    depthwise = weights.shape[1] == 1 and len(weights) == len(largest)
    # Each channel of a depthwise layer may have a scale of its own: nothing to balance with.
    alone = depthwise and granularity == "per_channel"
    axes = (1, 2, 3) if depthwise else (0, 2, 3)
    per_input = np.ones_like(largest) if alone else np.abs(weights).max(axes)
    alive = (largest > 0) & (per_input > 0)
    factors = np.ones_like(largest)
    ratio = largest[alive] / per_input[alive]
    factors[alive] = ratio if alone else np.sqrt(ratio)
    if alive.any():
        factors[alive] /= np.exp(np.log(factors[alive]).mean())
    factors = np.clip(factors, 1 / _LARGEST_FACTOR, _LARGEST_FACTOR)
    for value in first.inputs[1:]:
        if value is not None:
            array = arrays[str(value.name)]
            shape = (-1, *[1] * (array.ndim - 1))
            arrays[str(value.name)] = (array / factors.reshape(shape)).astype(np.float32)
    along = (-1, 1, 1, 1) if depthwise else (1, -1, 1, 1)
    arrays[name] = (weights * factors.reshape(along)).astype(np.float32)
