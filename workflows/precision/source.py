"""What is quantized: a float graph, its ranges, and the weights that a repair chose."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from ...calibration.collect import model_hash
from ...calibration.placement import Layer, QuantizedGraph, layers_of, place_qdq
from ...core.files import sha256_bytes
from ...core.ranges import RangeTable
from ...core.values import QuantScheme
from ...export.passes import for_one_image

Mended = Mapping[str, Mapping[str, NDArray[np.float32]]]
"""By layer, by constant: what takes a constant's place where the layer is quantized."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One plan for every runtime: what all Q/DQ graphs of a model are made from.

    Attributes:
        model: The float graph, or one that computes the same and is easier to quantize.
        table: Its ranges.
        mended: Weights and biases for layers that are quantized; those that are left float keep
            the model's own.
    """

    model: onnx.ModelProto
    table: RangeTable
    mended: Mended = field(default_factory=dict)

    def sha256(self) -> str:
        """Return a hash of all that a quantized graph follows from, but for the scheme."""
        names = [[layer, sorted(found)] for layer, found in sorted(self.mended.items())]
        arrays = (self.mended[str(layer)][name].tobytes() for layer, few in names for name in few)
        parts = [model_hash(self.model).encode(), self.table.sha256().encode()]
        return sha256_bytes(b"".join([*parts, msgspec.json.encode(names), *arrays]))

    def layers(self) -> tuple[Layer, ...]:
        """Return the layers that a plan decides on, in the graph's order."""
        return layers_of(self.model)

    def quantize(self, scheme: QuantScheme, float_nodes: Collection[str] = ()) -> QuantizedGraph:
        """Return the graph with the Q/DQ pairs of a scheme, but for the layers left float."""
        model = self._with_mended(float_nodes)
        if scheme.placement == "full":
            # What depends on nothing but the batch is no activation: it is computed now.
            model = for_one_image(model)
            if float_nodes:
                present = {layer.name for layer in layers_of(model)}
                float_nodes = [name for name in float_nodes if name in present]
        return place_qdq(model, self.table, scheme, float_nodes)

    def _with_mended(self, float_nodes: Collection[str]) -> onnx.ModelProto:
        chosen = {
            name: array
            for layer, constants in self.mended.items()
            if layer not in float_nodes
            for name, array in constants.items()
        }
        if not chosen:
            return self.model
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        for tensor in model.graph.initializer:
            if tensor.name in chosen:
                tensor.CopyFrom(numpy_helper.from_array(chosen[tensor.name], tensor.name))
        return model
