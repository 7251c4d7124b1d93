"""Inserts Q/DQ pairs into a graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...core.errors import CalibrationError
from ...core.ranges import Range
from ...core.values import QuantScheme
from ..scheme import QuantParams, activation_params, quantize_weights, weight_scales


class Qdq:
    """One graph's Q/DQ pairs: at most one on a value, shared by all that read it.

    Pairs that the graph came with stay as they are, and their parameters count as the value's.

    Attributes:
        graph: Changed in place.
        scheme: How scales are derived.
        left: The nodes that stay float.
    """

    def __init__(
        self,
        graph: ir.Graph,
        ranges: Mapping[str, Range],
        scheme: QuantScheme,
        left: frozenset[ir.Node] = frozenset(),
    ) -> None:
        self.graph = graph
        self.scheme = scheme
        self.left = left
        self._ranges = ranges
        self._constants: dict[str, ir.Value] = {}
        self._as_it_runs: dict[ir.Value, ir.Value] = {}
        values = (value for node in graph for value in (*node.inputs, *node.outputs))
        self._taken = {str(value.name) for value in values if value is not None}
        self._taken |= {str(node.name) for node in graph}

    def given(self, value: ir.Value | None) -> QuantParams | None:
        """Return the parameters of the pairs that a value already has; None where it has none.

        None, too, where its readers quantize it differently.
        """
        if value is None:
            return None
        producer = value.producer()
        if producer is not None and is_dequantized(value):
            return None if constant(producer.inputs[0]) is not None else _params_of(producer)
        quantizes = [use.node for use in value.uses() if use.node.op_type == "QuantizeLinear"]
        found = {_params_of(node) for node in quantizes}
        return found.pop() if len(found) == 1 else None

    def range(self, value: ir.Value) -> Range:
        """Return the range that a value's pairs cover; the calibrated one where it has none.

        Raises:
            CalibrationError: The table lacks it.
        """
        given = self.given(value)
        if given is not None:
            limits = np.iinfo(given.dtype)
            lo, hi = (
                float(code - given.zero_point) * given.scale for code in (limits.min, limits.max)
            )
            return Range(lo, hi)
        found = self._ranges.get(value.name or "")
        if found is None:
            raise CalibrationError(
                f"the calibration table has no range for tensor {value.name!r}; calibrate again"
            )
        return found

    def params(self, value: ir.Value) -> QuantParams:
        """Return a value's given parameters, or those that the scheme derives from its range."""
        return self.given(value) or activation_params(self.range(value), self.scheme)

    def activation(self, value: ir.Value, params: QuantParams) -> ir.Value:
        """Put a pair on a value; all that read it, the graph's output too, read the pair's end.

        Where what makes it stays float, so does what is read of it by others that do.
        """
        users = list(value.uses())
        name = str(value.name)
        is_output = value.is_graph_output()
        if not self.makes_codes(value):
            users = [use for use in users if use.node not in self.left]
            is_output = False
        if is_output:
            value.name = self.unique(name, "_float") + "_float"
            self._taken.discard(name)
        end = self.pair(value, params, name if is_output else f"{name}_dequantized")
        for node, index in users:
            node.replace_input_with(index, end)
        if is_output:
            outputs = self.graph.outputs
            for position, output in enumerate(list(outputs)):
                if output is value:
                    outputs[position] = end
        return end

    def makes_codes(self, value: ir.Value) -> bool:
        """Whether a value is computed in integers; the image is not where it is left float."""
        producer = value.producer()
        if producer is None:
            return not any(use.node in self.left for use in value.uses())
        return producer not in self.left

    def edge(self, node: ir.Node, index: int, params: QuantParams) -> None:
        """Put a pair on one input of one node only."""
        value = node.inputs[index]
        assert value is not None
        name = f"{value.name}_to_{node.name}_{index}"
        node.replace_input_with(index, self.pair(value, params, name, before=node))

    def weights(self, node: ir.Node, *, axis: int, input_range: Range | None) -> bool:
        """Quantize a node's second input as the scheme says; False where it is no constant."""
        value = node.inputs[1]
        weights = constant(value)
        if value is None or weights is None or weights.dtype != np.float32:
            return False
        bias = known(node.inputs[2]) if len(node.inputs) > 2 else None
        scales = weight_scales(
            weights, axis=axis, bias=bias, input_range=input_range, granularity=self.scheme.weights
        )
        codes = quantize_weights(weights, scales, axis=axis)
        name = f"{value.name}_{node.name}" if len(value.uses()) > 1 else str(value.name)
        end = self.dequantized(name, codes, scales, np.zeros(scales.shape, np.int8), axis)
        node.replace_input_with(1, end)
        return True

    def as_it_runs(self, node: ir.Node) -> None:
        """Quantize a node's first input with the range that it has as the network runs."""
        value = node.inputs[0]
        assert value is not None
        if value not in self._as_it_runs:
            name = f"{value.name}_dynamic"
            codes = _value(f"{name}_quantized", ir.DataType.UINT8, value.shape)
            scale = _value(f"{name}_scale", ir.DataType.FLOAT, ir.Shape(()))
            zero_point = _value(f"{name}_zero_point", ir.DataType.UINT8, ir.Shape(()))
            end = _value(f"{name}_dequantized", ir.DataType.FLOAT, value.shape)
            parameters = [codes, scale, zero_point]
            pair = [
                ir.node("DynamicQuantizeLinear", [value], outputs=parameters, name=f"{name}_q"),
                ir.node("DequantizeLinear", parameters, outputs=[end], name=f"{name}_dq"),
            ]
            self.graph.insert_before(node, pair)
            self._as_it_runs[value] = end
        node.replace_input_with(0, self._as_it_runs[value])

    def constant_input(self, node: ir.Node, index: int) -> None:
        """Quantize a constant that is an operand beside an activation, per tensor."""
        value = node.inputs[index]
        values = constant(value)
        assert value is not None
        assert values is not None
        interval = Range(float(values.min()), float(values.max()))
        params = activation_params(interval, self.scheme)
        dtype = params.dtype
        limits = np.iinfo(dtype)
        codes = np.rint(values / params.scale) + params.zero_point
        end = self.dequantized(
            f"{value.name}_{node.name}",
            np.clip(codes, limits.min, limits.max).astype(dtype),
            np.asarray(params.scale, np.float32),
            np.asarray(params.zero_point, dtype),
            None,
        )
        node.replace_input_with(index, end)

    def pair(
        self, value: ir.Value, params: QuantParams, name: str, before: ir.Node | None = None
    ) -> ir.Value:
        """Put a pair behind what makes a value, or before one reader; return the pair's end."""
        scale = self.scalar(params.scale, np.dtype(np.float32))
        zero_point = self.scalar(params.zero_point, params.dtype)
        name = self.unique(name, "", "_quantized", "_quantize", "_dequantize")
        codes = _value(f"{name}_quantized", ir.DataType.from_numpy(params.dtype), value.shape)
        end = _value(name, ir.DataType.FLOAT, value.shape)
        quantize = ir.node(
            "QuantizeLinear", [value, scale, zero_point], outputs=[codes], name=f"{name}_quantize"
        )
        dequantize = ir.node(
            "DequantizeLinear", [codes, scale, zero_point], outputs=[end], name=f"{name}_dequantize"
        )
        producer = value.producer()
        if before is not None:
            self.graph.insert_before(before, [quantize, dequantize])
        elif producer is not None:
            self.graph.insert_after(producer, [quantize, dequantize])
        else:
            self.graph.insert_before(next(iter(self.graph)), [quantize, dequantize])
        return end

    def dequantized(
        self,
        name: str,
        codes: NDArray[np.signedinteger[Any]],
        scales: NDArray[np.float32],
        zero_points: NDArray[np.signedinteger[Any]],
        axis: int | None,
    ) -> ir.Value:
        """Return what a new DequantizeLinear of constant codes gives."""
        name = self.unique(name, "_dequantized", "_dequantize", "_int8", "_scale", "_zero_point")
        end = _value(f"{name}_dequantized", ir.DataType.FLOAT, ir.Shape(codes.shape))
        inputs = [
            self.register(f"{name}_{codes.dtype.name}", codes),
            self.register(f"{name}_scale", scales),
            self.register(f"{name}_zero_point", zero_points),
        ]
        attributes = {} if axis is None else {"axis": axis}
        node = ir.node(
            "DequantizeLinear", inputs, attributes, outputs=[end], name=f"{name}_dequantize"
        )
        self.graph.insert_before(next(iter(self.graph)), node)
        return end

    def unique(self, name: str, *endings: str) -> str:
        """Return ``name``, or ``name_2``, ..., whose endings make no taken name, and take them."""
        unique, count = name, 1
        while any(f"{unique}{ending}" in self._taken for ending in endings):
            count += 1
            unique = f"{name}_{count}"
        self._taken |= {f"{unique}{ending}" for ending in endings}
        return unique

    def scalar(self, number: float, dtype: np.dtype[Any]) -> ir.Value:
        """Return a scalar constant; equal ones are one."""
        key = f"{dtype.name}_{number!r}"
        if key not in self._constants:
            self._constants[key] = self.register(self.unique(key, ""), np.asarray(number, dtype))
        return self._constants[key]

    def register(self, name: str, array: NDArray[np.generic]) -> ir.Value:
        """Return a new constant."""
        tensor = ir.tensor(array, name=name)
        value = ir.Value(
            name=name,
            const_value=tensor,
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(array.shape),
        )
        self.graph.register_initializer(value)
        return value


def constant(value: ir.Value | None) -> NDArray[Any] | None:
    """Return the array of a constant value; None for an activation."""
    if value is None or value.const_value is None:
        return None
    return value.const_value.numpy()


def drop_unused(graph: ir.Graph) -> None:
    """Remove the initializers that nothing reads any more."""
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]


def known(value: ir.Value | None) -> NDArray[Any] | None:
    """Return the array of a constant value, dequantized where it is behind a DequantizeLinear."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "DequantizeLinear":
        return constant(value)
    codes, scale, zero_point = (constant(v) for v in node.inputs)
    if codes is None or scale is None or zero_point is None:
        return None
    if scale.size > 1:
        along = [1] * codes.ndim
        along[node.attributes.get_int("axis", 1)] = -1
        scale, zero_point = scale.reshape(along), zero_point.reshape(along)
    steps = codes.astype(np.float64) - zero_point.astype(np.float64)
    return np.asarray(steps * scale, np.float32)


def is_dequantized(value: ir.Value | None) -> bool:
    """Return whether a value is what a DequantizeLinear gives."""
    producer = value.producer() if value is not None else None
    return producer is not None and producer.op_type == "DequantizeLinear"


def _params_of(node: ir.Node) -> QuantParams | None:
    """Return what a Q or DQ of an activation says, in terms of signed codes."""
    scale, zero_point = constant(node.inputs[1]), constant(node.inputs[2])
    if scale is None or zero_point is None:
        return None
    bits = 8 * zero_point.dtype.itemsize
    shift = 1 << (bits - 1) if zero_point.dtype.kind == "u" else 0
    return QuantParams(float(scale.flat[0]), int(zero_point.flat[0]) - shift, bits)


def _value(name: str, dtype: ir.DataType, shape: ir.Shape | None) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=shape)
