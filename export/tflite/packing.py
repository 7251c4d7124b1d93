"""Opens a finished TFLite file and packs it again."""

from __future__ import annotations

from typing import Any

from ai_edge_litert import schema_py_generated as schema

from ...core.errors import GraphError
from .writer import aligned_buffer, packed


def unpack(tflite: bytes) -> Any:
    """Return a file as the schema's objects; what follows the model (a zip) is left behind."""
    return schema.ModelT.InitFromPackedBuf(tflite)


def pack(model: Any) -> bytes:
    """Return the bytes of the schema's objects; equal objects give equal bytes."""
    model.buffers = [aligned_buffer(buffer.data) for buffer in model.buffers]
    return packed(model, sum(0 if b.data is None else b.data.nbytes for b in model.buffers))


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
