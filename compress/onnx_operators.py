"""ONNX operators in torch, as far as simplified graphs of classifiers have them.

Each takes its node's inputs and attributes. Integer constants (shapes, axes, bounds of slices) come
as numpy arrays, everything else as tensors; what is left out is None.

Source: https://onnx.ai/onnx/operators/, opset 20.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

Input: TypeAlias = "torch.Tensor | NDArray[Any] | None"
Attributes: TypeAlias = "Mapping[str, Any]"
Operator: TypeAlias = (
    "Callable[[Sequence[Any], Attributes], torch.Tensor | tuple[torch.Tensor, ...]]"
)


def _conv(x: Sequence[Any], attributes: Attributes) -> torch.Tensor:
    image, weights = x[:2]
    bias = x[2] if len(x) > 2 else None
    kernel = weights.shape[2:]
    stride, dilation = _pair(attributes, "strides"), _pair(attributes, "dilations")
    padded = functional.pad(image, _pads(attributes, image, kernel, stride, dilation))
    groups = attributes.get("group", 1)
    found: torch.Tensor = torch.conv2d(padded, weights, bias, stride, 0, dilation, groups)
    return found


def _gemm(x: Sequence[Any], attributes: Attributes) -> torch.Tensor:
    left = x[0].mT if attributes.get("transA", 0) else x[0]
    right = x[1].mT if attributes.get("transB", 0) else x[1]
    found: torch.Tensor = attributes.get("alpha", 1.0) * (left @ right)
    if len(x) > 2 and x[2] is not None:
        found = found + attributes.get("beta", 1.0) * x[2]
    return found


def _pair(attributes: Attributes, name: str) -> tuple[int, int]:
    first, second = attributes.get(name) or (1, 1)
    return first, second


def _pads(
    attributes: Attributes, image: torch.Tensor, kernel: Sequence[int], stride: Sequence[int],
    dilation: Sequence[int],
) -> list[int]:  # fmt: skip
    """Return (left, right, top, bottom), as torch wants it."""
    padded = attributes.get("auto_pad", "NOTSET")
    if padded == "NOTSET":
        top, left, bottom, right = attributes.get("pads") or (0, 0, 0, 0)
        return [left, right, top, bottom]
    found = []
    for axis in (1, 0):
        size, extent = image.shape[axis - 2], (kernel[axis] - 1) * dilation[axis] + 1
        needed = max(0, (-(-size // stride[axis]) - 1) * stride[axis] + extent - size)
        less, more = needed // 2, needed - needed // 2
        found += {"VALID": [0, 0], "SAME_UPPER": [less, more], "SAME_LOWER": [more, less]}[padded]
    return found


def _window(
    image: torch.Tensor, attributes: Attributes
) -> tuple[list[int], tuple[int, int], tuple[int, int], tuple[int, int], list[int]]:
    """Return a pool's pads, kernel, stride and dilation, and what ceil_mode adds to the pads."""
    kernel = _pair(attributes, "kernel_shape")
    stride, dilation = _pair(attributes, "strides"), _pair(attributes, "dilations")
    pads = _pads(attributes, image, kernel, stride, dilation)
    more = [0, 0, 0, 0]
    if attributes.get("ceil_mode", 0):
        for axis in (1, 0):
            place = 2 * (1 - axis)
            size = image.shape[axis - 2] + pads[place] + pads[place + 1]
            extent = (kernel[axis] - 1) * dilation[axis] + 1
            count = math.ceil((size - extent) / stride[axis]) + 1
            if (count - 1) * stride[axis] >= size - pads[place + 1]:
                count -= 1  # a window must begin in the image or in the pads before it
            more[place + 1] = max(0, (count - 1) * stride[axis] + extent - size)
    return pads, kernel, stride, dilation, more


def _max_pool(x: Sequence[Any], attributes: Attributes) -> torch.Tensor:
    pads, kernel, stride, dilation, more = _window(x[0], attributes)
    every = [one + other for one, other in zip(pads, more, strict=True)]
    padded = functional.pad(x[0], every, value=-math.inf)
    return functional.max_pool2d(padded, kernel, stride, dilation=dilation)


def _average_pool(x: Sequence[Any], attributes: Attributes) -> torch.Tensor:
    pads, kernel, stride, _, more = _window(x[0], attributes)
    every = [one + other for one, other in zip(pads, more, strict=True)]
    found = functional.avg_pool2d(functional.pad(x[0], every), kernel, stride)
    if not any(every):
        return found
    # A window's sum is divided by the places that count, which the pads may or may not do.
    counted = torch.ones_like(x[0][:, :1])
    counted = functional.pad(counted, pads, value=float(attributes.get("count_include_pad", 0)))
    return found / functional.avg_pool2d(functional.pad(counted, more), kernel, stride)


def _axes(x: Sequence[Any], attributes: Attributes, index: int = 1) -> list[int] | None:
    """Return the axes that a node names, as an input or, before, as an attribute."""
    if len(x) > index and x[index] is not None:
        return [int(axis) for axis in x[index]]
    return list(attributes["axes"]) if "axes" in attributes else None


def _reduced(
    reduce: Callable[[torch.Tensor, list[int], bool], torch.Tensor],
) -> Operator:
    def apply(x: Sequence[Any], attributes: Attributes) -> torch.Tensor:
        axes = _axes(x, attributes)
        if axes is None:
            if attributes.get("noop_with_empty_axes", 0):
                return x[0]  # type: ignore[no-any-return]
            axes = list(range(x[0].ndim))
        return reduce(x[0], axes, bool(attributes.get("keepdims", 1)))

    return apply


def _reshape(x: Sequence[Any], attributes: Attributes) -> torch.Tensor:
    wanted = [int(size) for size in x[1]]
    if not attributes.get("allowzero", 0):
        wanted = [x[0].shape[i] if size == 0 else size for i, size in enumerate(wanted)]
    found: torch.Tensor = x[0].reshape(wanted)
    return found


def _flatten(x: Sequence[Any], attributes: Attributes) -> torch.Tensor:
    axis = attributes.get("axis", 1) % (x[0].ndim + 1)
    found: torch.Tensor = x[0].reshape(math.prod(x[0].shape[:axis]), -1)
    return found


def _transpose(x: Sequence[Any], attributes: Attributes) -> torch.Tensor:
    found: torch.Tensor = x[0].permute(attributes.get("perm") or [*range(x[0].ndim)][::-1])
    return found


def _squeeze(x: Sequence[Any], attributes: Attributes) -> torch.Tensor:
    axes = _axes(x, attributes)
    found: torch.Tensor = x[0].squeeze() if axes is None else x[0].squeeze(axes)
    return found


def _unsqueeze(x: Sequence[Any], attributes: Attributes) -> torch.Tensor:
    axes = _axes(x, attributes) or []
    found: torch.Tensor = x[0]
    for axis in sorted(axis % (x[0].ndim + len(axes)) for axis in axes):
        found = found.unsqueeze(axis)
    return found


def _slice(x: Sequence[Any], attributes: Attributes) -> torch.Tensor:
    del attributes
    starts, ends = x[1], x[2]
    axes = _axes(x, {}, 3) or list(range(len(starts)))
    steps = x[4] if len(x) > 4 and x[4] is not None else np.ones(len(starts), np.int64)
    found: torch.Tensor = x[0]
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        places = range(found.shape[axis])[int(start) : _end(int(end), int(step)) : int(step)]
        if step > 0:
            first, last = (places[0], places[-1] + 1) if places else (0, 0)
            found = found[(slice(None),) * (axis % found.ndim) + (slice(first, last, int(step)),)]
        else:
            found = found.index_select(axis, torch.tensor(list(places), device=found.device))
    return found


def _end(end: int, step: int) -> int | None:
    """Return a slice's end; ONNX writes one before the first place as the smallest number."""
    return None if step < 0 and end < -(2**30) else end


def _gather(x: Sequence[Any], attributes: Attributes) -> torch.Tensor:
    axis = attributes.get("axis", 0) % x[0].ndim
    indices = np.asarray(x[1])
    places = torch.as_tensor(indices.reshape(-1) % x[0].shape[axis], device=x[0].device)
    found: torch.Tensor = x[0].index_select(axis, places)
    return found.reshape(*x[0].shape[:axis], *indices.shape, *x[0].shape[axis + 1 :])


def _pad(x: Sequence[Any], attributes: Attributes) -> torch.Tensor:
    axes = _axes(x, {}, 3) or list(range(x[0].ndim))
    begin, end = np.split(np.asarray(x[1]), 2)
    every = [0] * (2 * x[0].ndim)
    for axis, before, after in zip(axes, begin, end, strict=True):
        place = 2 * (x[0].ndim - 1 - axis % x[0].ndim)
        every[place : place + 2] = int(before), int(after)
    mode = attributes.get("mode", "constant")
    if mode == "constant":
        value = 0.0 if len(x) < 3 or x[2] is None else float(x[2])
        return functional.pad(x[0], every, value=value)
    while every and every[-2:] == [0, 0]:
        every = every[:-2]
    return functional.pad(x[0], every, mode="replicate" if mode == "edge" else str(mode))


def _split(x: Sequence[Any], attributes: Attributes) -> tuple[torch.Tensor, ...]:
    axis = attributes.get("axis", 0)
    if len(x) > 1 and x[1] is not None:
        return tuple(torch.split(x[0], [int(size) for size in x[1]], axis))
    return tuple(torch.split(x[0], -(-x[0].shape[axis] // attributes["num_outputs"]), axis))


def _layer_norm(x: Sequence[Any], attributes: Attributes) -> torch.Tensor:
    axis = attributes.get("axis", -1)
    bias = x[2] if len(x) > 2 else None
    shape = list(x[0].shape[axis:])
    return functional.layer_norm(x[0], shape, x[1], bias, attributes.get("epsilon", 1e-5))


def _instance_norm(x: Sequence[Any], attributes: Attributes) -> torch.Tensor:
    axes = tuple(range(2, x[0].ndim))
    mean = x[0].mean(axes, keepdim=True)
    variance = (x[0] - mean).square().mean(axes, keepdim=True)
    shape = (1, -1) + (1,) * len(axes)
    found = (x[0] - mean) / (variance + attributes.get("epsilon", 1e-5)).sqrt()
    whole: torch.Tensor = found * x[1].reshape(shape) + x[2].reshape(shape)
    return whole


def _clip(x: Sequence[Any], attributes: Attributes) -> torch.Tensor:
    del attributes
    low, high = (float(x[i]) if len(x) > i and x[i] is not None else None for i in (1, 2))
    return torch.clamp(x[0], low, high)


def _prelu(x: Sequence[Any], attributes: Attributes) -> torch.Tensor:
    del attributes
    return torch.where(x[0] < 0, x[0] * x[1], x[0])


def _folded(combine: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Operator:
    def apply(x: Sequence[Any], attributes: Attributes) -> torch.Tensor:
        del attributes
        found: torch.Tensor = x[0]
        for other in x[1:]:
            found = combine(found, other)
        return found

    return apply


def _elementwise(compute: Callable[..., torch.Tensor]) -> Operator:
    return lambda x, _: compute(*x)


def _depth_to_space(x: Sequence[Any], attributes: Attributes) -> torch.Tensor:
    block = attributes["blocksize"]
    batch, channels, height, width = x[0].shape
    if attributes.get("mode", "DCR") == "CRD":
        return functional.pixel_shuffle(x[0], block)
    found = x[0].reshape(batch, block, block, channels // block**2, height, width)
    whole: torch.Tensor = found.permute(0, 3, 4, 1, 5, 2).reshape(
        batch, channels // block**2, height * block, width * block
    )
    return whole


OPERATORS: Final[Mapping[str, Operator]] = {
    "Abs": _elementwise(torch.abs),
    "Add": _folded(torch.add),
    "AveragePool": _average_pool,
    "Clip": _clip,
    "Concat": lambda x, attributes: torch.cat(list(x), attributes["axis"]),
    "Conv": _conv,
    "DepthToSpace": _depth_to_space,
    "Div": _folded(torch.div),
    "Dropout": lambda x, _: x[0],
    "Elu": lambda x, attributes: functional.elu(x[0], attributes.get("alpha", 1.0)),
    "Erf": _elementwise(torch.erf),
    "Exp": _elementwise(torch.exp),
    "Expand": lambda x, _: x[0] * torch.ones([int(n) for n in x[1]], device=x[0].device),
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": lambda x, attributes: functional.gelu(
        x[0], approximate=attributes.get("approximate", "none")
    ),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda x, _: x[0].mean(tuple(range(2, x[0].ndim)), keepdim=True),
    "GlobalMaxPool": lambda x, _: x[0].amax(tuple(range(2, x[0].ndim)), keepdim=True),
    "HardSigmoid": lambda x, attributes: torch.clamp(
        attributes.get("alpha", 0.2) * x[0] + attributes.get("beta", 0.5), 0, 1
    ),
    "HardSwish": _elementwise(functional.hardswish),
    "Identity": lambda x, _: x[0],
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda x, attributes: functional.leaky_relu(x[0], attributes.get("alpha", 0.01)),
    "Log": _elementwise(torch.log),
    "MatMul": _folded(torch.matmul),
    "Max": _folded(torch.maximum),
    "MaxPool": _max_pool,
    "Min": _folded(torch.minimum),
    "Mul": _folded(torch.mul),
    "Neg": _elementwise(torch.neg),
    "PRelu": _prelu,
    "Pad": _pad,
    "Pow": _elementwise(torch.pow),
    "Reciprocal": _elementwise(torch.reciprocal),
    "ReduceMax": _reduced(lambda x, axes, keep: torch.amax(x, axes, keep)),
    "ReduceMean": _reduced(lambda x, axes, keep: torch.mean(x, axes, keep)),
    "ReduceMin": _reduced(lambda x, axes, keep: torch.amin(x, axes, keep)),
    "ReduceSum": _reduced(lambda x, axes, keep: torch.sum(x, axes, keep)),
    "Relu": _elementwise(torch.relu),
    "Reshape": _reshape,
    "Sigmoid": _elementwise(torch.sigmoid),
    "Slice": _slice,
    "Softmax": lambda x, attributes: torch.softmax(x[0], attributes.get("axis", -1)),
    "Softplus": _elementwise(functional.softplus),
    "Split": _split,
    "Sqrt": _elementwise(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _folded(torch.sub),
    "Tanh": _elementwise(torch.tanh),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""By ONNX name."""
