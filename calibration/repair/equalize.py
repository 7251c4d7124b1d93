"""Equalization: channels between two layers are scaled to use the codes alike.

ReLU lets a positive factor through, so a channel can be made smaller by one layer and larger again
by the next: the network computes the same. Weights have a scale for each output channel here, so
that the first layer's factors cost nothing; the activations between have one scale for all, and a
dense second layer one for all its inputs. So a channel is divided by the square root of (its
largest value / the second layer's largest weight for it), by its largest value where the second
layer is depthwise, and the channels' mean factor stays one.

A normalization's scale and bias take factors as well, and no scale of codes: what stands behind a
transformer's layer norm is treated alike. There the rule is SmoothQuant's with its alpha of 0.5.

Where weights have one scale for all, it is they that are balanced between two convolutions: a
channel is divided by the square root of (its largest weight in the first layer / in the second).

Sources: Nagel et al. 2019, arXiv:1906.04721, section 4.1: the latter; Xiao et al. 2023,
arXiv:2211.10438, section 4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import numpy_helper

from ...core.values import Granularity, Tensor
from .moments import Reals, values_of_images
from .seams import Seam, find_seams

_LARGEST_FACTOR: Final = 2.0**8  # biases and weights stay well inside FP16


def equalized(
    model: onnx.ModelProto, tensors: Iterable[Tensor], granularity: Granularity = "per_channel"
) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Return the graph with equalized channels, which computes the same, and what was scaled.

    Args:
        model: The float graph, BatchNormalization folded; not changed.
        tensors: Images that show how large channels get, shape (1, C, H, W) each.
        granularity: Of the weights' scales.

    Returns:
        The graph, and the names of the values whose channels were scaled; none where no factor
        can be moved. Ranges have to be measured again.
    """
    seams = find_seams(ir.from_proto(model).graph)
    if not seams:
        return model, ()
    ends = dict(reader.source for seam in seams for reader in seam.readers)
    seen: dict[str, Reals] = {}
    for values in values_of_images(model, list(ends), tensors):
        for end, axis in ends.items():
            seen[end] = np.maximum(seen.get(end, 0.0), _largest(values[end], axis))
    arrays = {item.name: numpy_helper.to_array(item).copy() for item in model.graph.initializer}
    for seam in seams:
        factors = _factors(seam, arrays, seen, granularity)
        for name, axis in seam.made_by:
            arrays[name] = _times(arrays[name], 1 / factors, axis)
        for reader in seam.readers:
            name, axis = reader.weights
            arrays[name] = _times(arrays[name], factors, axis)
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for item in made.graph.initializer:
        item.CopyFrom(numpy_helper.from_array(arrays[item.name], item.name))
    return made, tuple(seam.name for seam in seams)


def _factors(
    seam: Seam,
    arrays: Mapping[str, NDArray[np.float32]],
    seen: Mapping[str, Reals],
    granularity: Granularity,
) -> Reals:
    """Return what each channel is divided by."""
    if granularity == "per_tensor" and seam.weighted:
        name, axis = seam.made_by[0]
        largest = _largest(arrays[name], axis)
    else:
        largest = np.max([seen[reader.source[0]] for reader in seam.readers], 0)
    # Each channel of a depthwise layer may have a scale of its own: nothing to balance with.
    balanced = [
        _largest(arrays[reader.weights[0]], reader.weights[1])
        for reader in seam.readers
        if granularity == "per_tensor" or not reader.depthwise
    ]
    into = np.max(balanced, 0) if balanced else np.ones_like(largest)
    alive = (largest > 0) & (into > 0)
    factors = np.ones_like(largest)
    ratio = largest[alive] / into[alive]
    factors[alive] = np.sqrt(ratio) if balanced else ratio
    if alive.any():
        factors[alive] /= np.exp(np.log(factors[alive]).mean())
    return np.clip(factors, 1 / _LARGEST_FACTOR, _LARGEST_FACTOR)


def _largest(array: NDArray[np.float32], axis: int) -> Reals:
    """Return each channel's largest magnitude."""
    others = tuple(one for one in range(array.ndim) if one != axis)
    found: Reals = np.abs(array).max(others).astype(np.float64)
    return found


def _times(array: NDArray[np.float32], factors: Reals, axis: int) -> NDArray[np.float32]:
    shape = [-1 if one == axis else 1 for one in range(array.ndim)]
    return (array * factors.reshape(shape)).astype(np.float32)
