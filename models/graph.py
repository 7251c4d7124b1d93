"""Reads a ``.onnx`` file: checked, one image in, one vector out, all weights inside."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np
import onnx
from onnx import external_data_helper, numpy_helper

from ..core.errors import GraphError
from ..core.files import sha256_bytes
from .loaded import LoadedModel

_LARGEST_BYTES = 2**31 - 1
_FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16}


def load_graph(source: str, path: Path) -> LoadedModel:
    """Return the graph of a ``.onnx`` file, serialised with its external weights inside.

    Raises:
        GraphError: Not an ONNX file, damaged, invalid, with other inputs than one image or other
            outputs than one, with weights outside its folder, or with NaN in them.
    """
    model = _read(path)
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise GraphError(f"{path}: not a valid ONNX graph: {reason}") from error
    batch, size = _input(path, model.graph)
    classes = _classes(path, model.graph)
    _check_finite(path, model.graph)
    data = model.SerializeToString(deterministic=True)
    return LoadedModel(
        source=source,
        onnx=data,
        input_size=size,
        fixed_batch=batch,
        num_classes=classes,
        weights_sha256=sha256_bytes(data),
    )


def _read(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load_model(str(path), format="protobuf", load_external_data=False)
    except Exception as error:  # protobuf's own error has no type that is public and typed
        raise GraphError(f"{path}: not a readable ONNX file: {error}") from error
    if not model.graph.node:
        raise GraphError(f"{path}: not an ONNX graph: it has no operators")
    if _load_external(path, model) > _LARGEST_BYTES or model.ByteSize() > _LARGEST_BYTES:
        raise GraphError(f"{path}: larger than 2 GiB, the most that an ONNX file can hold")
    return model


def _load_external(path: Path, model: onnx.ModelProto) -> int:
    """Take in weights that stand in files beside the graph, and return their size in bytes.

    A place outside the graph's folder could be any file of this machine: it is refused.
    """
    tensors = [t for t in model.graph.initializer if external_data_helper.uses_external_data(t)]
    if not tensors:
        return 0
    folder = path.parent.resolve()
    files = set()
    for tensor in tensors:
        place = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        file = folder / place
        outside = not place or PurePosixPath(place).is_absolute() or ".." in Path(place).parts
        if outside or file.is_symlink() or not file.resolve().is_relative_to(folder):
            raise GraphError(
                f"{path}: the weights of {tensor.name!r} are in {place!r}, outside its folder"
            )
        if not file.is_file():
            raise GraphError(f"{path}: its weights file {place!r} is missing beside it")
        files.add(file)
    size = sum(file.stat().st_size for file in files)
    if size > _LARGEST_BYTES:
        return size
    try:
        for tensor in tensors:
            external_data_helper.load_external_data_for_tensor(tensor, str(folder))
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]
    except (ValueError, OSError, RuntimeError, onnx.checker.ValidationError) as error:
        raise GraphError(f"{path}: its external weights cannot be read: {error}") from error
    return size


def _input(path: Path, graph: onnx.GraphProto) -> tuple[int | None, tuple[int, int, int] | None]:
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    names = ", ".join(value.name for value in inputs)
    if len(inputs) != 1:
        raise GraphError(f"{path}: expected one input, found {len(inputs)}: {names}")
    tensor = inputs[0].type.tensor_type
    shape = _shape(inputs[0])
    if len(shape) != 4 or tensor.elem_type not in _FLOATS:
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type)
        raise GraphError(
            f"{path}: expected a float input (batch, channels, height, width), "
            f"found {names!r} of {kind} {shape}"
        )
    batch, channels, height, width = shape
    if channels not in {None, 1, 3}:
        raise GraphError(
            f"{path}: expected 1 or 3 channels on axis 1 of {names!r}, found {channels}: "
            "channels-last graphs and other inputs than images are not supported"
        )
    if channels is None or height is None or width is None:
        return batch, None
    return batch, (channels, height, width)


def _classes(path: Path, graph: onnx.GraphProto) -> int | None:
    if len(graph.output) != 1:
        names = ", ".join(value.name for value in graph.output)
        raise GraphError(f"{path}: expected one output, found {len(graph.output)}: {names}")
    output = graph.output[0]
    if not output.type.tensor_type.HasField("shape"):
        return None
    shape = _shape(output)
    if len(shape) != 2:
        raise GraphError(f"{path}: expected the output (batch, classes), found {shape}")
    return shape[1]


def _shape(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    dimensions = value.type.tensor_type.shape.dim
    return tuple(d.dim_value if d.HasField("dim_value") else None for d in dimensions)


def _check_finite(path: Path, graph: onnx.GraphProto) -> None:
    for tensor in graph.initializer:
        if tensor.data_type in _FLOATS and np.isnan(numpy_helper.to_array(tensor)).any():
            raise GraphError(f"{path}: NaN in the weights {tensor.name!r}")
