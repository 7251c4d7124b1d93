"""Means and second moments of what each layer's weights are multiplied by.

A convolution is a product of its weights by the patches of its input. What rounding the weights
costs on average follows from the patches' mean and second moment alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from ...core.ranges import Range, RangeTable
from ...core.values import Granularity, Tensor
from ..placement.layers import COMPUTE, layer_name
from ..placement.qdq import constant
from ..placement.weights import weight_axis
from ..scheme import weight_scales

Reals = NDArray[np.float64]

LARGEST: Final = 2304
"""Layers that sum more products than this are left as they are: a moment takes 8 * n**2 bytes."""

_ROWS: Final = 256  # patches of an image in the second moment: a fixed lattice of all


@dataclass(frozen=True, slots=True, kw_only=True)
class Operand:
    """A layer's weights, as a matrix for each group.

    Attributes:
        layer: The layer's name.
        source: The name of what they are multiplied by.
        weights: The name of the constant.
        bias: The name of its bias; None without one.
        matrix: Shape (groups, outputs of a group, products that one output sums), float64.
        scales: Shape (groups, outputs of a group): the scale of each output's codes.
        shared: Whether all outputs share one scale.
        conv: The kernel's (height, width), strides, pads (top, left, bottom, right) and dilations;
            None for a product of matrices.
        transposed: Whether a product's constant has the outputs along its first axis.
    """

    layer: str
    source: str
    weights: str
    bias: str | None
    matrix: Reals
    scales: Reals
    shared: bool
    conv: tuple[tuple[int, ...], ...] | None
    transposed: bool

    def codes(self, matrix: Reals | None = None) -> Reals:
        """Return the nearest codes -127..127 of these weights, or of others of their shape."""
        steps = (self.matrix if matrix is None else matrix) / self.scales[..., None]
        found: Reals = np.clip(np.rint(steps), -127, 127)
        return found

    def rows(self, constant: NDArray[np.float32]) -> Reals:
        """Return a constant of the graph's form as a matrix for each group."""
        flat = constant if self.conv is not None or self.transposed else constant.T
        return flat.reshape(self.matrix.shape).astype(np.float64)

    def constant(self, matrix: Reals, like: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a matrix in the form that the graph's constant has."""
        flat = matrix.reshape(-1, matrix.shape[-1])
        if self.conv is not None or self.transposed:
            return np.asarray(flat.reshape(like.shape), np.float32)
        return np.ascontiguousarray(flat.T, np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Of the patches that a layer's weights meet, over all images and places.

    Attributes:
        mean: Shape (groups, products).
        second: Shape (groups, products, products): the mean of each pair's product.
    """

    mean: Reals
    second: Reals


def operands(
    model: onnx.ModelProto, table: RangeTable, granularity: Granularity = "per_channel"
) -> dict[str, Operand]:
    """Return the layers whose weights can be chosen, by name, with the scales they will have.

    Weights that two layers share are left out, and what is padded at run time or sums too much.
    """
    graph = ir.from_proto(model).graph
    found = {}
    for node in graph:
        if node.op_type in COMPUTE:
            operand = _operand(node, table, granularity)
            if operand is not None and operand.matrix.shape[-1] <= LARGEST:
                found[operand.layer] = operand
    return found


def _operand(node: ir.Node, table: RangeTable, granularity: Granularity) -> Operand | None:
    axis, weights = weight_axis(node), constant(node.inputs[1])
    source = node.inputs[0]
    if axis is None or weights is None or source is None or weights.dtype != np.float32:
        return None
    third = node.inputs[2] if len(node.inputs) > 2 else None
    bias = constant(third)
    if any(v is not None and len(v.uses()) > 1 for v in (node.inputs[1], third)):
        return None
    conv, groups = None, 1
    if node.op_type == "Conv":
        padded: str = node.attributes.get_string("auto_pad", "NOTSET")
        if padded != "NOTSET" or weights.ndim != 4:
            return None
        groups = node.attributes.get_int("group", 1)
        conv = (
            weights.shape[2:],
            tuple(node.attributes.get_ints("strides", (1, 1))),
            tuple(node.attributes.get_ints("pads", (0, 0, 0, 0))),
            tuple(node.attributes.get_ints("dilations", (1, 1))),
        )
    if node.op_type == "Gemm":
        across: int = node.attributes.get_int("transA", 0)
        factors = [node.attributes.get_float(name, 1.0) for name in ("alpha", "beta")]
        if across or factors != [1.0, 1.0]:
            return None
    known: Range | None = table.ranges.get(str(source.name))
    scales = weight_scales(
        weights, axis=axis, bias=bias, input_range=known, granularity=granularity
    )
    rows = weights if axis == 0 else weights.T
    outputs = len(rows) // groups
    return Operand(
        layer=layer_name(node),
        source=str(source.name),
        weights=str(node.inputs[1].name) if node.inputs[1] else "",
        bias=str(third.name) if third is not None and bias is not None else None,
        matrix=rows.reshape(groups, outputs, -1).astype(np.float64),
        scales=scales.reshape(groups, outputs).astype(np.float64),
        shared=granularity == "per_tensor",
        conv=conv,
        transposed=axis == 0,
    )


def collect_moments(
    model: onnx.ModelProto, chosen: Mapping[str, Operand], tensors: Iterable[Tensor]
) -> dict[str, Moments]:
    """Run the float graph over images and return each layer's moments.

    Args:
        model: The float graph, all its values' types known.
        chosen: The layers, by name.
        tensors: Images, shape (1, C, H, W) each; at least one.
    """
    sums: dict[str, list[Any]] = {}
    names = list(dict.fromkeys(operand.source for operand in chosen.values()))
    for values in values_of_images(model, names, tensors):
        for name, operand in chosen.items():
            mean, patches = _patches(values[operand.source], operand)
            each = sums.setdefault(name, [0, 0.0, 0.0])
            each[0] += 1
            each[1] = each[1] + mean
            each[2] = each[2] + np.matmul(patches.transpose(0, 2, 1), patches) / patches.shape[1]
    return {
        name: Moments(mean=first / count, second=second / count)
        for name, (count, first, second) in sums.items()
    }


def values_of_images(
    model: onnx.ModelProto, names: list[str], tensors: Iterable[Tensor]
) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Yield named values of each image."""
    (source,) = (item.name for item in model.graph.input)
    known = {output.name for output in model.graph.output} | {source}
    infos = {value.name: value for value in model.graph.value_info}
    more = onnx.ModelProto()
    more.graph.output.extend(infos[name] for name in names if name not in known)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    # Serialized messages in a row are one: these outputs follow the graph's own.
    data = model.SerializeToString() + more.SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    fetched = [name for name in names if name != source]
    for tensor in tensors:
        found = session.run(fetched, {source: tensor})
        yield {source: tensor, **dict(zip(fetched, found, strict=True))}


def _patches(values: NDArray[np.float32], operand: Operand) -> tuple[Reals, Reals]:
    """Return the mean of all patches (groups, products), and some (groups, patches, products)."""
    groups = operand.matrix.shape[0]
    if operand.conv is None:
        rows = values.reshape(-1, values.shape[-1]).astype(np.float64)
        return rows.mean(0)[None], rows[:: -(-len(rows) // _ROWS)][None]
    (height, width), strides, (top, left, bottom, right), (down, across) = operand.conv
    padded = np.pad(values[0], ((0, 0), (top, bottom), (left, right)))
    extent = ((height - 1) * down + 1, (width - 1) * across + 1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, extent, axis=(1, 2))
    windows = windows[:, :: strides[0], :: strides[1], ::down, ::across]
    channels, lines, columns = windows.shape[:3]
    mean = windows.mean((1, 2), dtype=np.float64).reshape(groups, -1)
    picked = np.arange(0, lines * columns, -(-lines * columns // _ROWS))
    chosen = windows[:, picked // columns, picked % columns].astype(np.float64)
    grouped = chosen.reshape(groups, channels // groups, len(picked), height * width)
    return mean, grouped.transpose(0, 2, 1, 3).reshape(groups, len(picked), -1)
