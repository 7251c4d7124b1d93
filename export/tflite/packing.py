"""Opens a finished TFLite file and packs it again."""

from __future__ import annotations

from typing import Any

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

from ...core.errors import GraphError
from .writer import aligned_buffer


def unpack(tflite: bytes) -> Any:
    """Return a file as the schema's objects; what follows the model (a zip) is left behind."""
    return schema.ModelT.InitFromPackedBuf(tflite)


def pack(model: Any) -> bytes:
    """Return the bytes of the schema's objects; equal objects give equal bytes."""
    model.buffers = [
        aligned_buffer(None if buffer.data is None else bytes(buffer.data))
        for buffer in model.buffers
    ]
    size = sum(len(buffer.data or b"") for buffer in model.buffers)
    builder = flatbuffers.Builder(size + 65536)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def ends(model: Any) -> tuple[Any, Any]:
    """Return a classifier's input and output tensor.

    Raises:
        GraphError: The file is none: one input (1, H, W, C) and one output (1, classes).
    """
    graph = model.subgraphs[0]
    inputs, outputs = ([graph.tensors[i] for i in end] for end in (graph.inputs, graph.outputs))
    shapes = [tuple(int(size) for size in tensor.shape) for tensor in (*inputs, *outputs)]
    if [len(shape) for shape in shapes] != [4, 2] or len(inputs) != 1:
        raise GraphError(
            "expected a classifier's TFLite file, one input (1, H, W, C) and one output "
            f"(1, classes), found shapes {shapes}; use the file as it is"
        )
    return inputs[0], outputs[0]


def text(value: str | bytes) -> str:
    """Return a name; the schema's objects hold bytes where they were unpacked."""
    return value.decode() if isinstance(value, bytes) else value
