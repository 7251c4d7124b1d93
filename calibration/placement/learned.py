"""The same placement for a graph whose scales are still being learned.

The pairs stand where ``place_qdq`` puts them, as the same code decides; what is noted beside is
from which tensor's range each pair has its parameters, and which weights would become codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import numpy as np
import onnx
import onnx_ir as ir

from ...core.errors import UsageError
from ...core.ranges import Range, RangeTable
from ...core.values import QuantScheme
from ..scheme import QuantParams, activation_params
from . import PLACEMENTS
from .layers import layer_name
from .qdq import Qdq, constant


@dataclass(frozen=True, slots=True)
class LearnedParams(QuantParams):
    """Parameters that a tensor's range gave; equal only where it is the same tensor's.

    Attributes:
        origin: Its name.
    """

    origin: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightPoint:
    """Weights that become codes.

    Attributes:
        axis: Of the output channels.
        source: What they are multiplied by.
        weights: The constant's name.
        bias: Its bias's name; None without one.
    """

    axis: int
    source: str
    weights: str
    bias: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedPlacement:
    """A float graph with the pairs of a scheme on its activations, and its weights in float.

    Attributes:
        graph: The graph.
        scheme: How ranges become parameters.
        pairs: By the name of a pair's end, its parameters; those that a runtime fixes have no
            origin.
        weights: By layer.
        origins: By tensor, the one whose range gave its pair's parameters.
        ranges: The table's, by tensor.
    """

    graph: ir.Graph
    scheme: QuantScheme
    pairs: Mapping[str, QuantParams]
    weights: Mapping[str, WeightPoint]
    origins: Mapping[str, str]
    ranges: Mapping[str, Range]

    def origin(self, tensor: str) -> str:
        """Return the tensor whose range a tensor's pair has its parameters from."""
        return self.origins.get(tensor, tensor)

    def range(self, tensor: str) -> Range:
        """Return the range that decides about a tensor."""
        return self.ranges[self.origin(tensor)]


def place_learned(
    model: onnx.ModelProto, table: RangeTable, scheme: QuantScheme
) -> LearnedPlacement:
    """Return where a scheme quantizes a float graph; ``model`` is left as it is.

    Args:
        model: A float graph.
        table: Its ranges.
        scheme: Of 8-bit activations; which way its codes are stored does not matter here.

    Raises:
        UsageError: Activations have another width.
        CalibrationError: The table lacks a tensor that the scheme quantizes.
    """
    if scheme.activation_bits != 8:
        raise UsageError(f"scales are learned for 8-bit activations, not {scheme.activation_bits}")
    graph_model = ir.from_proto(model)
    qdq = _Noted(graph_model.graph, table.ranges, msgspec.structs.replace(scheme, codes="int8"))
    PLACEMENTS[scheme.placement](graph_model, qdq)
    graph_model.graph.sort()
    return LearnedPlacement(
        graph=graph_model.graph,
        scheme=qdq.scheme,
        pairs=qdq.pairs,
        weights=qdq.weighted,
        origins=qdq.origins,
        ranges=table.ranges,
    )


class _Noted(Qdq):
    """Places pairs and notes whose they are."""

    def __init__(self, graph: ir.Graph, ranges: Mapping[str, Range], scheme: QuantScheme) -> None:
        super().__init__(graph, ranges, scheme)
        self.pairs: dict[str, QuantParams] = {}
        self.weighted: dict[str, WeightPoint] = {}
        self.origins: dict[str, str] = {}

    def params(self, value: ir.Value) -> QuantParams:
        found = super().params(value)
        return LearnedParams(found.scale, found.zero_point, found.bits, str(value.name))

    def activation(self, value: ir.Value, params: QuantParams) -> ir.Value:
        if isinstance(params, LearnedParams):
            self.origins[str(value.name)] = params.origin
        return super().activation(value, params)

    def pair(
        self, value: ir.Value, params: QuantParams, name: str, before: ir.Node | None = None
    ) -> ir.Value:
        end = super().pair(value, params, name, before)
        self.pairs[str(end.name)] = params
        return end

    def weights(self, node: ir.Node, *, axis: int, input_range: Range | None) -> bool:
        del input_range  # it is learned
        source, value = node.inputs[:2]
        weights = constant(value)
        if source is None or value is None or weights is None or weights.dtype != np.float32:
            return False
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        self.weighted[layer_name(node)] = WeightPoint(
            axis=axis,
            source=str(source.name),
            weights=str(value.name),
            bias=None if constant(bias) is None or bias is None else str(bias.name),
        )
        return True

    def constant_input(self, node: ir.Node, index: int) -> None:
        # A pair like an activation's, so that the constant itself stays what it is.
        values = constant(node.inputs[index])
        assert values is not None
        interval = Range(float(values.min()), float(values.max()))
        self.edge(node, index, activation_params(interval, self.scheme))
