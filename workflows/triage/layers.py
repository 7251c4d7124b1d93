"""Which layers of a file add an error of their own, whatever the layers before them did.

Each layer of the file is fed with the float model's values, as far as its codes can say them, and
its output is compared with the float model's. So a layer is not blamed for what it was given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from ...core.values import Tensor
from ...drift.explanation import LayerFinding

Values = Mapping[str, NDArray[np.float32]]

_SHOWN: Final = 5
# Other images or roundings do not double an error; below a thousandth none matters.
_FACTOR: Final = 2.0
_SMALL: Final = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer and its errors; see ``LayerFinding``."""

    name: str
    error: float
    inputs_error: float
    scale: float | None


class ErrorSum:
    """Squares of differences and of values, summed over images."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, float]] = {}

    def add(self, name: str, expected: NDArray[np.float32], found: NDArray[np.floating]) -> None:
        """Take a tensor of one image, of any shape."""
        wide = expected.astype(np.float64).ravel()
        difference = float(((found.astype(np.float64).ravel() - wide) ** 2).sum())
        before = self._sums.get(name, (0.0, 0.0))
        self._sums[name] = (before[0] + difference, before[1] + float((wide**2).sum()))

    def relative(self, name: str) -> float:
        """Return the root mean square of the difference over that of the values; 0 where unseen."""
        difference, size = self._sums.get(name, (0.0, 0.0))
        if size == 0.0:
            return 0.0 if difference == 0.0 else float("inf")
        return float(np.sqrt(difference / size))


class FloatValues:
    """Runs a float graph and gives the values of its tensors."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph_model = ir.from_proto(model)
        graph = graph_model.graph
        self.operators = {
            str(value.name): node.op_type
            for node in graph
            for value in node.outputs
            if value.dtype == ir.DataType.FLOAT
        }
        known = {str(value.name) for value in graph.outputs}
        graph.outputs.extend(
            value
            for node in graph
            for value in node.outputs
            if value.dtype == ir.DataType.FLOAT and value.name not in known
        )
        self.source = str(graph.inputs[0].name)
        self._session = session(ir.to_proto(graph_model))
        self._names = [output.name for output in self._session.get_outputs()]

    def __call__(self, tensor: Tensor) -> Values:
        """Return every float tensor for one image (1, C, H, W), the image included."""
        found = self._session.run(self._names, {self.source: tensor})
        return {self.source: tensor, **dict(zip(self._names, found, strict=True))}


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    """Return what runs a graph as it is written, on one thread."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def findings(
    planned: Iterable[Layer], found: Sequence[Layer], operators: Mapping[str, str]
) -> tuple[LayerFinding, ...]:
    """Return the layers that depart, in order; where none does, those with the largest errors.

    Args:
        planned: Of the file that the reference gives today.
        found: Of the file that ships, in the graph's order.
        operators: What computes each.
    """
    plans = {layer.name: layer for layer in planned}
    every = [_finding(plans[layer.name], layer, operators) for layer in found]
    departing = [layer for layer in every if layer.departs]
    if departing:
        return tuple(departing[:_SHOWN])
    worst = sorted(every, key=lambda layer: -layer.error)[:_SHOWN]
    return tuple(layer for layer in worst if layer.error > _SMALL)


def _finding(plan: Layer, layer: Layer, operators: Mapping[str, str]) -> LayerFinding:
    explained = max(plan.error, layer.inputs_error)
    return LayerFinding(
        name=layer.name,
        operator=operators.get(layer.name, ""),
        error=layer.error,
        inputs_error=layer.inputs_error,
        planned_error=plan.error,
        scale=layer.scale,
        planned_scale=plan.scale,
        departs=layer.error > max(_FACTOR * explained, _SMALL),
    )
