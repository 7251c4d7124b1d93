"""A float ONNX graph as a torch module that computes with a scheme's codes and learns their scales.

The graph is the very one that export quantizes, batch norm folded, and the pairs stand where export
places them. It is a graph of one image; torch maps it over a batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from ..calibration.placement.learned import LearnedParams, LearnedPlacement
from ..calibration.scheme import QuantParams, range_of, weight_scales
from ..core.errors import CalibrationError
from ..core.ranges import Range
from .fake_quantize import fake_quantize, learned_scales, quantize_weights, step_factor
from .onnx_operators import OPERATORS
from .onnx_steps import first_line, sizes_of, steps_of, unsupported, weights_as_codes

# What torch raises where an operator has a form that is not known here.
_REFUSALS = (RuntimeError, ValueError, TypeError, IndexError, KeyError)


@dataclass(frozen=True, slots=True)
class _Point:
    """Where activations are rounded: the learned scale's place, or None and the fixed one."""

    index: int | None
    scale: float
    zero_point: int


class QuantizedModule(nn.Module):
    """Computes logits (N, classes) from images (N, C, H, W) as the quantized graph would.

    Weights, biases and norms learn, and the scales of activations as logarithms. A channel's weight
    scale follows from its largest weight, as in every file that ships: a learned one would have
    nowhere to stand, and at eight bits there is little to clip.

    Attributes:
        quantizes: Whether it rounds; False computes the float graph.
        names: Of the constants that learn, in the order of ``weights``.
        origins: Of the tensors whose scales learn, in the order of ``logarithms``.
        weights: What learns.
        logarithms: Of the scales, shape (points,).
    """

    def __init__(self, placement: LearnedPlacement) -> None:
        """Begin with a graph's weights and a table's ranges.

        Args:
            placement: The graph, batch 1 and every shape known.

        Raises:
            UnsupportedOperatorError: A node cannot be trained through; it is named.
        """
        super().__init__()
        self.quantizes = True
        self._scheme, self._weighted = placement.scheme, dict(placement.weights)
        self._ranges = {name: placement.range(name) for name in placement.ranges}
        self._roots = {name: placement.origin(name) for name in placement.ranges}
        learned: dict[str, LearnedParams] = {}
        for params in placement.pairs.values():
            if isinstance(params, LearnedParams):
                learned.setdefault(params.origin, params)
        self.origins = tuple(learned)
        self._zero_points = tuple(params.zero_point for params in learned.values())
        places = {name: index for index, name in enumerate(self.origins)}
        self._points = {end: _point(params, places) for end, params in placement.pairs.items()}
        scales = torch.tensor([params.scale for params in learned.values()])
        self.logarithms = nn.Parameter(scales.log())
        sizes = sizes_of(placement.graph)
        codes = 127 if self._scheme.activations == "symmetric" else 255
        factors = [step_factor(sizes[name], codes) for name in self.origins]
        self.register_buffer("_factors", torch.tensor(factors), persistent=False)
        self._source = str(placement.graph.inputs[0].name)
        self._end = str(placement.graph.outputs[0].name)
        self._steps, constants, learns = steps_of(placement)
        self._static: dict[str, NDArray[Any]] = {}
        self._buffers_of: dict[str, str] = {}
        self.names = tuple(name for name in constants if name in learns)
        self.weights = nn.ParameterList(
            nn.Parameter(torch.from_numpy(constants[name].copy())) for name in self.names
        )
        for index, (name, array) in enumerate(constants.items()):
            if name in learns:
                continue
            if array.dtype == np.int64:
                self._static[name] = array
            else:
                self._buffers_of[name] = f"_constant{index}"
                tensor = torch.from_numpy(np.array(array))
                self.register_buffer(f"_constant{index}", tensor, persistent=False)

    def scales(self) -> torch.Tensor:
        """Return the scales of ``origins`` as they ship, float32."""
        half = self._scheme.activations == "symmetric"
        factors: torch.Tensor = self._factors  # type: ignore[assignment]
        return learned_scales(self.logarithms, factors, half=half)

    def ranges(self) -> dict[str, Range]:
        """Return the ranges from which the scheme derives the scales, of every tensor with one.

        A tensor whose pair has another's parameters has the other's range.
        """
        found = self._learned_ranges(self.scales())
        return {name: found[root] for name, root in self._roots.items() if root in found}

    def constants(self) -> dict[str, NDArray[np.float32]]:
        """Return what learned, by the name in the graph."""
        return {
            name: value.detach().cpu().numpy()
            for name, value in zip(self.names, self.weights, strict=True)
        }

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (N, classes) for images (N, C, H, W) float32."""
        values: dict[str, Any] = dict(zip(self.names, self.weights, strict=True))
        values |= {name: getattr(self, place) for name, place in self._buffers_of.items()}
        values |= self._static
        scales: torch.Tensor | None = None
        if self.quantizes:
            scales = self.scales()
            values |= self._quantized_weights(values, scales)
        else:
            for layer, point in self._weighted.items():
                values[weights_as_codes(layer)] = values[point.weights]

        def one(image: torch.Tensor) -> torch.Tensor:
            return self._run({**values, self._source: image}, scales)

        mapped: torch.Tensor = torch.func.vmap(one)(images.float()[:, None])
        return mapped[:, 0]

    def _run(self, values: dict[str, Any], scales: torch.Tensor | None) -> torch.Tensor:
        for step in self._steps:
            if step.operator == "QuantizeLinear":
                values[step.outputs[0]] = values[step.inputs[0]]
            elif step.operator == "DequantizeLinear":
                end = step.outputs[0]
                values[end] = self._rounded(values[step.inputs[0]], self._points[end], scales)
            else:
                inputs = [values[name] if name else None for name in step.inputs]
                try:
                    found = OPERATORS[step.operator](inputs, step.attributes)
                except torch.OutOfMemoryError:
                    raise
                except _REFUSALS as error:
                    raise unsupported(step.operator, step.name, first_line(error)) from error
                every = found if isinstance(found, tuple) else (found,)
                values.update(zip(step.outputs, every, strict=False))
            for name in step.done:
                del values[name]
        end_value: torch.Tensor = values[self._end]
        return end_value

    def _rounded(
        self, value: torch.Tensor, point: _Point, scales: torch.Tensor | None
    ) -> torch.Tensor:
        if scales is None:
            return value
        known_scale = torch.tensor(point.scale, device=value.device)
        scale = known_scale if point.index is None else scales[point.index]
        return fake_quantize(value, scale, point.zero_point)

    def _quantized_weights(
        self, values: Mapping[str, Any], scales: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        ranges = self._learned_ranges(scales)
        found = {}
        for layer, point in self._weighted.items():
            weights = values[point.weights]
            bias = None if point.bias is None else values[point.bias].detach().cpu().numpy()
            root = self._roots[point.source]
            try:
                derived = weight_scales(
                    weights.detach().cpu().numpy(), axis=point.axis, bias=bias,
                    input_range=ranges.get(root) or self._ranges[point.source],
                )  # fmt: skip
            except CalibrationError:
                # What diverged shows as a loss that is NaN, of which the training says what it is.
                derived = np.full(weights.shape[point.axis], np.nan, np.float32)
            along = torch.from_numpy(derived).to(weights.device)
            found[weights_as_codes(layer)] = quantize_weights(weights, along, point.axis)
        return found

    def _learned_ranges(self, scales: torch.Tensor) -> dict[str, Range]:
        numbers = scales.detach().cpu().tolist()
        return {
            name: range_of(QuantParams(scale, zero_point), self._scheme, self._ranges[name])
            for name, scale, zero_point in zip(
                self.origins, numbers, self._zero_points, strict=True
            )
            if math.isfinite(scale)
        }


def with_constants(
    model: onnx.ModelProto, constants: Mapping[str, NDArray[np.float32]]
) -> onnx.ModelProto:
    """Return a graph with other values of its constants; ``model`` is left as it is."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for tensor in changed.graph.initializer:
        if tensor.name in constants:
            tensor.CopyFrom(numpy_helper.from_array(constants[tensor.name], tensor.name))
    return changed


def _point(params: QuantParams, places: Mapping[str, int]) -> _Point:
    index = places[params.origin] if isinstance(params, LearnedParams) else None
    return _Point(index, params.scale, params.zero_point)
