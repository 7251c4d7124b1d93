"""The layers of an ONNX file with Q/DQ, each run alone on ONNX Runtime in float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import numpy_helper

from .layers import ErrorSum, Layer, Values, session

_FED: Final = "fed/"
_QDQ: Final = frozenset({"QuantizeLinear", "DequantizeLinear"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Point:
    """What quantizes a value: its scale and zero point, and its smallest and largest code."""

    scale: float
    zero_point: int
    lowest: int
    highest: int

    def keep(self, values: NDArray[np.float32]) -> NDArray[np.floating]:
        """Return what the codes of values say of them."""
        codes = np.rint(values / np.float32(self.scale)) + self.zero_point
        kept: NDArray[np.floating] = codes.clip(self.lowest, self.highest) - self.zero_point
        return kept * self.scale


def with_parameters_of(planned: onnx.ModelProto, shipped: bytes) -> onnx.ModelProto | None:
    """Return the planned graph with the scales and codes of a file that has the same nodes.

    The file may run over FP16: the parameters are the same numbers there.

    Returns:
        None where the file has other Q/DQ nodes.
    """
    found = onnx.ModelProto.FromString(shipped).graph
    theirs = {item.name: item for item in found.initializer}
    nodes = {node.name: node for node in found.node if node.op_type in _QDQ}
    made = onnx.ModelProto()
    made.CopyFrom(planned)
    ours = {item.name: item for item in made.graph.initializer}
    names = {node.name for node in made.graph.node if node.op_type in _QDQ}
    if names != nodes.keys():
        return None
    for node in made.graph.node:
        if node.op_type not in _QDQ:
            continue
        for place, name in enumerate(node.input):
            other = nodes[node.name].input[place]
            if name not in ours or other not in theirs:
                continue
            array = numpy_helper.to_array(theirs[other])
            if ours[name].dims != theirs[other].dims:
                return None
            own = f"{node.name}/{place}"
            dtype = numpy_helper.to_array(ours[name]).dtype
            made.graph.initializer.append(numpy_helper.from_array(array.astype(dtype), own))
            node.input[place] = own
    return made


def onnx_layers(model: onnx.ModelProto, images: Sequence[Values]) -> list[Layer]:
    """Run each part of a graph between two quantized values on the float model's values.

    Args:
        model: A graph with Q/DQ over float32.
        images: The float model's values, by name, for each image.

    Returns:
        One layer for each value that is quantized, and the output; in the graph's order.
    """
    graph_model = ir.from_proto(model)
    graph = graph_model.graph
    points = _points(graph, images[0])
    computed = {name: value for name, value in points.items() if value.producer() is not None}
    output = graph.outputs[0]
    ends = {**computed, str(output.name): output} if str(output.name) in images[0] else computed
    sources = {name: set[str]() for name in ends}
    quants = {name: _parameters(value) for name, value in points.items()}
    for name, value in computed.items():
        fed = ir.Value(name=f"{_FED}{name}", type=value.type, shape=value.shape)
        for node, index in list(value.uses()):
            node.replace_input_with(index, fed)
        graph.inputs.append(fed)
    for name, value in ends.items():
        sources[name] = _read_by(value)
    graph.outputs[:] = list(dict.fromkeys(ends.values()))
    runner = session(ir.to_proto(graph_model))
    names = [item.name for item in runner.get_outputs()]
    inputs = [item.name for item in runner.get_inputs()]
    fed_sum, made = ErrorSum(), ErrorSum()
    for values in images:
        feed = {name: values[name.removeprefix(_FED)] for name in inputs}
        for name, quant in quants.items():
            fed_sum.add(name, values[name], quant.keep(values[name]))
        for name, found in zip(names, runner.run(names, feed), strict=True):
            kept = quants[name].keep(found) if name in quants else found
            made.add(name, values[name], kept)
    return [
        Layer(
            name=name,
            error=made.relative(name),
            inputs_error=max((fed_sum.relative(source) for source in sources[name]), default=0.0),
            scale=quants[name].scale if name in quants else None,
        )
        for name in ends
    ]


def _points(graph: ir.Graph, known: Mapping[str, object]) -> dict[str, ir.Value]:
    """Return the values of the float graph that are quantized, by name."""
    return {
        str(node.inputs[0].name): node.inputs[0]
        for node in graph
        if node.op_type == "QuantizeLinear"
        and node.inputs[0] is not None
        and str(node.inputs[0].name) in known
    }


def _parameters(value: ir.Value) -> _Point:
    """Return with what the first reader quantizes a value."""
    reader = next(use.node for use in value.uses() if use.node.op_type == "QuantizeLinear")
    scale, zero = (_constant(item) for item in reader.inputs[1:3])
    limits = np.iinfo(zero.dtype)
    return _Point(
        scale=float(scale.ravel()[0]),
        zero_point=int(zero.ravel()[0]),
        lowest=int(limits.min),
        highest=int(limits.max),
    )


def _constant(value: ir.Value | None) -> NDArray[Any]:
    assert value is not None
    assert value.const_value is not None, "the project's placement writes scales and zero points"
    return value.const_value.numpy()


def _read_by(value: ir.Value) -> set[str]:
    """Return the fed values, and the image, that a value is computed from."""
    found: set[str] = set()
    seen: set[ir.Value] = set()
    waiting = [value]
    while waiting:
        current = waiting.pop()
        producer = current.producer()
        if producer is None:
            if current.const_value is None:
                found.add(str(current.name).removeprefix(_FED))
            continue
        for source in producer.inputs:
            if source is not None and source not in seen:
                seen.add(source)
                waiting.append(source)
    return found
