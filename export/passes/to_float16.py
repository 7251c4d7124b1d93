"""Casts a float32 graph to FP16 between a float32 input and a float32 output.

A strongly typed TensorRT build runs what isn't quantized in the graph's own type: FP16 is chosen
here, in the graph. Scales of Q/DQ are cast too, exactly: calibration chooses only scales that FP16
represents. Scales of Resize stay float32: ONNX has them in no other type.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import PassResult

from ...core.errors import GraphError
from ..nodes import node_name, optional_input, unsupported
from .contract import GraphPass

FLOAT16_MAX: Final = 65504.0


class ToFloat16(GraphPass):
    """Casts initializers, constants and values; Cast nodes stand at the borders.

    Raises:
        GraphError: A weight is beyond FP16's range, or a scale is none of its numbers.
        UnsupportedOperatorError: The scales of a Resize are computed at run time.
    """

    def requires(self, model: ir.Model) -> None:
        """Of every value the type: one that is not known would stay float32."""
        unknown = (
            f"none of {value.name!r}"
            for node in model.graph
            for value in node.outputs
            if value.name and value.dtype is None
        )
        self.rely_on("known types", unknown)

    def call(self, model: ir.Model) -> PassResult:
        """Cast."""
        _cast(model.graph)
        return PassResult(model, modified=True)

    def ensures(self, model: ir.Model) -> None:
        """Nothing between the borders is float32 but the scales of Resize."""
        self.promise("FP16 between input and output", _float32(model.graph))


def _cast(graph: ir.Graph) -> None:
    scales = {
        node.inputs[1].name
        for node in graph
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"} and node.inputs[1] is not None
    }
    _split_resize_scales(graph)
    for value in list(graph.initializers.values()):
        tensor = None if _is_resize_scales(value) else value.const_value
        if tensor is not None and tensor.dtype == ir.DataType.FLOAT:
            cast = _half(value.name or "", tensor.numpy(), exact=value.name in scales)
            value.const_value = ir.tensor(cast, name=value.name)
            value.dtype = ir.DataType.FLOAT16
    for node in graph:
        if node.op_type == "Cast" and node.attributes.get_int("to", 0) == ir.DataType.FLOAT:
            node.attributes["to"] = ir.AttrInt64("to", ir.DataType.FLOAT16.value)
        for attribute in list(node.attributes.values()):
            if attribute.type == ir.AttributeType.TENSOR:
                tensor = attribute.as_tensor()
                if tensor.dtype == ir.DataType.FLOAT:
                    cast = _half(node.name or "", tensor.numpy(), exact=False)
                    node.attributes[attribute.name] = ir.AttrTensor(attribute.name, ir.tensor(cast))
        for value in node.outputs:
            if value.dtype == ir.DataType.FLOAT:
                value.dtype = ir.DataType.FLOAT16
    _cast_borders(graph)


def _split_resize_scales(graph: ir.Graph) -> None:
    """Give every Resize scales of its own: others may read the same constant, as FP16."""
    for node in list(graph):
        scales = optional_input(node, 2) if node.op_type == "Resize" else None
        if scales is None:
            continue
        tensor = ir.convenience.get_const_tensor(scales)
        if tensor is None or scales.is_graph_input():
            raise unsupported(node, "its scales are computed at run time", "make them constant")
        name = f"{node.outputs[0].name}_resize_scales"
        held = ir.tensor(tensor.numpy(), name=name)
        own = ir.Value(
            name=name,
            type=ir.TensorType(held.dtype),
            shape=ir.Shape(held.shape.numpy()),
            const_value=held,
        )
        graph.register_initializer(own)
        node.replace_input_with(2, own)
        if not scales.uses() and scales.is_initializer():
            del graph.initializers[str(scales.name)]
        elif not scales.uses() and (producer := scales.producer()) is not None:
            graph.remove(producer, safe=True)


def _is_resize_scales(value: ir.Value) -> bool:
    uses = value.uses()
    return bool(uses) and all(use.node.op_type == "Resize" and use.idx == 2 for use in uses)


def _float32(graph: ir.Graph) -> Iterator[str]:
    for value in graph.initializers.values():
        if _is_resize_scales(value):
            continue
        if value.const_value is not None and value.const_value.dtype == ir.DataType.FLOAT:
            yield f"the float32 initializer {value.name!r}"
    for source in graph.inputs:
        for use in source.uses():
            if source.dtype == ir.DataType.FLOAT and use.node.op_type != "Cast":
                yield f"the float32 input of node {node_name(use.node)!r}"
    for node in graph:
        for attribute in node.attributes.values():
            is_tensor = attribute.type == ir.AttributeType.TENSOR
            if is_tensor and attribute.as_tensor().dtype == ir.DataType.FLOAT:
                yield f"a float32 constant in node {node_name(node)!r}"
        for value in node.outputs:
            if value.dtype == ir.DataType.FLOAT and not value.is_graph_output():
                yield f"the float32 value {value.name!r}"


def _half(name: str, values: NDArray[np.float32], *, exact: bool) -> NDArray[np.float16]:
    largest = float(np.abs(values).max(initial=0.0))
    # Bounds that mean "none" (a Clip's or a padding's lowest) become FP16's own.
    if largest >= float(np.finfo(np.float32).max):
        clipped: NDArray[np.float16] = np.clip(values, -FLOAT16_MAX, FLOAT16_MAX).astype(np.float16)
        return clipped
    if largest > FLOAT16_MAX:
        raise GraphError(
            f"{name!r} holds {largest:g}, beyond FP16's 65504; choose --precision fp32"
        )
    cast = values.astype(np.float16)
    if exact and not np.array_equal(cast.astype(np.float32), values):
        raise GraphError(f"scale {name!r} is not representable in FP16; calibrate the float model")
    return cast


def _cast_borders(graph: ir.Graph) -> None:
    for source in graph.inputs:
        if source.dtype != ir.DataType.FLOAT:
            continue
        half = _value(f"{source.name}_half", source, ir.DataType.FLOAT16)
        consumers = list(source.uses())
        cast = ir.node(
            "Cast", [source], {"to": ir.DataType.FLOAT16}, outputs=[half], name=half.name
        )
        for node, index in consumers:
            node.replace_input_with(index, half)
        first = next(iter(graph))
        graph.insert_before(first, cast)
    for position, output in enumerate(graph.outputs):
        if output.dtype != ir.DataType.FLOAT16:
            continue
        name = output.name
        output.name = f"{name}_half"
        final = _value(str(name), output, ir.DataType.FLOAT)
        graph.append(
            ir.node(
                "Cast", [output], {"to": ir.DataType.FLOAT}, outputs=[final], name=f"{name}_cast"
            )
        )
        graph.outputs[position] = final


def _value(name: str, like: ir.Value, dtype: ir.DataType) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=like.shape)
