"""The layers of a TFLite file, each run alone by the interpreter's own kernels."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from ...export.tflite.lowering import Form
from ...export.tflite.quantization import Quant
from ...export.tflite.writer import aligned_buffer, packed
from .layers import ErrorSum, Layer, Values


@dataclass(frozen=True, slots=True, kw_only=True)
class _Isolated:
    """A file whose layers all read inputs of the graph.

    Attributes:
        data: Its bytes.
        own: By a known tensor, the one that its layer now writes to.
        sources: By a known tensor, the known ones that its layer reads.
        quants: By a known tensor, its parameters.
    """

    data: bytes
    own: dict[int, int]
    sources: dict[int, set[int]]
    quants: dict[int, Quant | None]


def same_structure(planned: bytes, found: bytes) -> bool:
    """Return whether two files have the same tensors and operators, whatever these hold."""
    return _structure(planned) == _structure(found)


def tflite_layers(data: bytes, forms: Mapping[str, Form], images: Sequence[Values]) -> list[Layer]:
    """Run each layer of a file on the float model's values.

    Args:
        data: The file.
        forms: Which tensor holds which value of the graph, and how.
        images: The float model's values, by name, for each image.

    Returns:
        In the order of the file.
    """
    known: dict[int, str] = {}
    for name, form in forms.items():
        if name in images[0] and form.pads is None:
            known.setdefault(form.tensor, name)
    isolated = _isolate(data, set(known))
    interpreter: Any = Interpreter(model_content=isolated.data, num_threads=1)
    interpreter.allocate_tensors()
    shapes = {item["index"]: item["shape"] for item in interpreter.get_input_details()}
    fed, made = ErrorSum(), ErrorSum()
    for values in images:
        for tensor in shapes:
            value = values[known[tensor]]
            held = forms[known[tensor]].layout.arrange(value).reshape(shapes[tensor])
            quant = isolated.quants[tensor]
            codes = held if quant is None else quant.codes(held)
            interpreter.set_tensor(tensor, codes)
            fed.add(known[tensor], held, _real(codes, quant))
        interpreter.invoke()
        for tensor, own in isolated.own.items():
            codes = interpreter.get_tensor(own)
            form, quant = forms[known[tensor]], isolated.quants[tensor]
            made.add(known[tensor], values[known[tensor]], _real(form.read(codes), quant))
    layers = []
    for tensor in isolated.own:
        quant = isolated.quants[tensor]
        inputs = [fed.relative(known[source]) for source in isolated.sources[tensor]]
        layers.append(
            Layer(
                name=known[tensor],
                error=made.relative(known[tensor]),
                inputs_error=max(inputs, default=0.0),
                scale=None if quant is None else quant.scale,
            )
        )
    return layers


def _isolate(data: bytes, known: set[int]) -> _Isolated:
    """Let each layer write to a tensor of its own, and make what the others read an input."""
    model = schema.ModelT.InitFromPackedBuf(data)
    graph = model.subgraphs[0]
    own: dict[int, int] = {}
    producers: dict[int, Any] = {}
    for operator in graph.operators:
        outputs = [int(tensor) for tensor in operator.outputs]
        for tensor in outputs:
            producers[tensor] = operator
            if tensor in known:
                made = copy.copy(graph.tensors[tensor])
                made.name = f"{_text(made.name)}/own"
                own[tensor] = len(graph.tensors)
                graph.tensors.append(made)
        operator.outputs = np.asarray([own.get(tensor, tensor) for tensor in outputs], np.int32)
    source = {int(tensor) for tensor in graph.inputs}
    graph.inputs = np.asarray(sorted(source | set(own)), np.int32)
    graph.outputs = np.asarray(list(own.values()), np.int32)
    model.signatureDefs = []
    size = 0
    for index, buffer in enumerate(model.buffers):
        content = None if buffer.data is None else np.asarray(buffer.data, np.uint8)
        size += 0 if content is None else content.nbytes
        model.buffers[index] = aligned_buffer(content)
    ends = set(own) | source
    sources = {tensor: _read_by(producers[tensor], producers, ends) for tensor in own}
    quants = {tensor: _quant(graph.tensors[tensor]) for tensor in ends}
    return _Isolated(data=packed(model, size), own=own, sources=sources, quants=quants)


def _read_by(operator: Any, producers: Mapping[int, Any], ends: set[int]) -> set[int]:
    """Return the known tensors that an operator reads, through others that hold no known value."""
    found: set[int] = set()
    waiting = [int(tensor) for tensor in operator.inputs]
    while waiting:
        tensor = waiting.pop()
        if tensor in ends:
            found.add(tensor)
        elif tensor in producers:
            waiting += [int(other) for other in producers[tensor].inputs]
    return found


def _quant(tensor: Any) -> Quant | None:
    if tensor.type not in (schema.TensorType.INT8, schema.TensorType.INT16):
        return None
    bits = 8 if tensor.type == schema.TensorType.INT8 else 16
    quantization = tensor.quantization
    return Quant(float(quantization.scale[0]), int(quantization.zeroPoint[0]), bits)


def _real(codes: NDArray[Any], quant: Quant | None) -> NDArray[Any]:
    if quant is None:
        return codes
    return (codes.astype(np.float64) - quant.zero_point) * quant.scale


def _structure(data: bytes) -> list[tuple[Any, ...]]:
    model = schema.ModelT.InitFromPackedBuf(data)
    graph = model.subgraphs[0]
    tensors = [(_text(t.name), tuple(t.shape), t.type) for t in graph.tensors]
    operators = [
        (model.operatorCodes[o.opcodeIndex].builtinCode, tuple(o.inputs), tuple(o.outputs))
        for o in graph.operators
    ]
    return [*tensors, *operators]


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)
