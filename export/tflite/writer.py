"""Writes a TFLite file through the schema's own object API."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from ...core.errors import GraphError
from .quantization import Quant
from .versions import operator_version

_TYPES: Final = {
    np.dtype(np.float32): schema.TensorType.FLOAT32,
    np.dtype(np.float16): schema.TensorType.FLOAT16,
    np.dtype(np.int8): schema.TensorType.INT8,
    np.dtype(np.int16): schema.TensorType.INT16,
    np.dtype(np.int32): schema.TensorType.INT32,
    np.dtype(np.int64): schema.TensorType.INT64,
    np.dtype(np.bool_): schema.TensorType.BOOL,
}

# Kernels read constants in place: SIMD loads want them aligned as the schema asks.
_ALIGNMENT: Final = 16

_LARGEST_FILE: Final = 2**31 - 2**24

# Up to here constants are compared by their bytes, of which a copy is kept.
_COMPARED_BYTES: Final = 2**20


@dataclass(frozen=True, slots=True, eq=False)
class ChannelQuant:
    """Symmetric scales along one axis of a constant.

    Attributes:
        scales: Shape (channels,), or (1,) for the whole tensor; float32.
        axis: The tensor's channel axis.
    """

    scales: NDArray[np.float32]
    axis: int


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A tensor of the file."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    quant: Quant | ChannelQuant | None
    buffer: int


class _Buffer(schema.BufferT):  # type: ignore[misc]
    """A buffer whose bytes are aligned; the generated one aligns to 1 byte.

    It holds an array of any strides, which is arranged as it is copied into the file, and lets go
    of it then: of hundreds of megabytes there is no second copy.
    """

    data: NDArray[Any] | None

    def Pack(self, builder: Any) -> Any:  # noqa: N802 - the schema's name
        offset = None
        if self.data is not None:
            array, self.data = self.data, None
            builder.StartVector(1, array.nbytes, _ALIGNMENT)
            builder.head -= array.nbytes
            place = builder.Bytes[builder.head : builder.head + array.nbytes]
            np.frombuffer(place, array.dtype).reshape(array.shape)[...] = array
            offset = builder.EndVector()
        schema.BufferStart(builder)
        if offset is not None:
            schema.BufferAddData(builder, offset)
        return schema.BufferEnd(builder)


@dataclass(frozen=True, slots=True, eq=False)
class _Operator:
    """An operator, and the code and version that a runtime must know."""

    code: tuple[int, int]
    made: Any


class ModelWriter:
    """Collects tensors and operators of one subgraph.

    Equal constants are kept once; large ones where they are the same memory.

    Attributes:
        tensors: All that were added.
        kept: After ``finish``, the index in the file of each tensor that the outputs depend on.
        transposes: After ``finish``, how many TRANSPOSE operators the file has.
    """

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        # Buffer 0 is empty by convention: activations point at it.
        self._buffers: list[NDArray[Any] | None] = [None]
        self._known_buffers: dict[Hashable, int] = {}
        self._known_constants: dict[tuple[Any, ...], int] = {}
        self._names: set[str] = set()
        self._operators: list[_Operator] = []
        self.kept: dict[int, int] = {}
        self.transposes = 0

    def activation(
        self,
        name: str,
        shape: Sequence[int],
        dtype: Any,
        quant: Quant | ChannelQuant | None = None,
    ) -> int:
        """Add a tensor that an operator computes, or the input; return its index."""
        return self._add(name, tuple(shape), np.dtype(dtype), quant, buffer=0)

    def constant(
        self,
        name: str,
        array: NDArray[Any],
        quant: Quant | ChannelQuant | None = None,
        *,
        shape: tuple[int, ...] | None = None,
    ) -> int:
        """Add a constant, or find an equal one; return its index.

        Args:
            name: Of the tensor.
            array: Its values; kept as it is until ``finish``.
            quant: Its parameters where it holds codes.
            shape: The tensor's, if it is not the array's.
        """
        shape = array.shape if shape is None else shape
        data = _identity(array)
        buffer = self._known_buffers.get(data)
        if buffer is None:
            buffer = self._known_buffers[data] = len(self._buffers)
            self._buffers.append(array)
        described: Any = quant
        if isinstance(quant, ChannelQuant):
            described = (quant.scales.tobytes(), quant.axis)
        key = (buffer, shape, array.dtype, described)
        if key not in self._known_constants:
            self._known_constants[key] = self._add(name, shape, array.dtype, quant, buffer)
        return self._known_constants[key]

    def operator(
        self, code: int, inputs: Sequence[int], outputs: Sequence[int], options: Any = None
    ) -> None:
        """Add an operator; ``options`` is the schema's object for it."""
        version = operator_version(
            code, [self.tensors[i] for i in inputs], [self.tensors[o] for o in outputs], options
        )
        if hasattr(options, "potScaleInt16"):
            # The schema takes 16-bit scales for powers of two unless it is told.
            options.potScaleInt16 = False
        made = schema.OperatorT()
        made.inputs = np.asarray(inputs, np.int32)
        made.outputs = np.asarray(outputs, np.int32)
        if options is not None:
            # The union's member is named as its class: Conv2DOptionsT -> Conv2DOptions.
            kind = type(options).__name__.removesuffix("T")
            made.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            made.builtinOptions = options
        self._operators.append(_Operator((code, version), made))

    def rename(self, tensor: int, name: str) -> None:
        """Give a tensor the name that the user knows it by; another that has it gets a new one."""
        if self.tensors[tensor].name == name:
            return
        for index, other in enumerate(self.tensors):
            if other.name == name:
                self.tensors[index] = replace(other, name=self._unique(name))
        self._names.add(name)
        self.tensors[tensor] = replace(self.tensors[tensor], name=name)

    def finish(self, *, inputs: dict[str, int], outputs: dict[str, int], description: str) -> bytes:
        """Return the file's bytes, and let go of the constants.

        ``inputs`` and ``outputs`` are tensors by name.
        """
        operators = self._drop_unused([*inputs.values(), *outputs.values()])
        inputs = {name: self.kept[tensor] for name, tensor in inputs.items()}
        outputs = {name: self.kept[tensor] for name, tensor in outputs.items()}
        codes = list(dict.fromkeys(operator.code for operator in operators))
        for operator in operators:
            operator.made.opcodeIndex = codes.index(operator.code)
            for name in ("inputs", "outputs"):
                places = [self.kept[int(index)] for index in getattr(operator.made, name)]
                setattr(operator.made, name, np.asarray(places, np.int32))
        graph = schema.SubGraphT()
        graph.name = "main"
        graph.tensors = [_tensor(self.tensors[index]) for index in self.kept]
        graph.inputs = np.asarray(list(inputs.values()), np.int32)
        graph.outputs = np.asarray(list(outputs.values()), np.int32)
        graph.operators = [operator.made for operator in operators]
        model = schema.ModelT()
        model.version = 3
        model.description = description
        model.operatorCodes = [operator_code(code, version) for code, version in codes]
        model.subgraphs = [graph]
        model.buffers = [aligned_buffer(data) for data in self._buffers]
        model.signatureDefs = [_signature(inputs, outputs)]
        size = sum(0 if data is None else data.nbytes for data in self._buffers)
        if size > _LARGEST_FILE:
            raise GraphError(
                f"expected at most 2 GiB of constants, which is what a TFLite file can hold, found "
                f"{size / 2**30:.1f} GiB; quantize the model or take a smaller one"
            )
        self._buffers.clear()
        return packed(model, size)

    def _drop_unused(self, ends: Sequence[int]) -> list[_Operator]:
        """Drop what no output depends on; return the operators that are left."""
        needed, left = set(ends), []
        for operator in reversed(self._operators):
            if needed.intersection(operator.made.outputs.tolist()):
                needed.update(operator.made.outputs.tolist(), operator.made.inputs.tolist())
                left.append(operator)
        tensors = [index for index in range(len(self.tensors)) if index in needed]
        self.kept = {index: place for place, index in enumerate(tensors)}
        buffers = list(dict.fromkeys([0, *(self.tensors[index].buffer for index in tensors)]))
        self._buffers = [self._buffers[buffer] for buffer in buffers]
        for index in tensors:
            tensor = self.tensors[index]
            self.tensors[index] = replace(tensor, buffer=buffers.index(tensor.buffer))
        self.transposes = sum(
            operator.code[0] == schema.BuiltinOperator.TRANSPOSE for operator in left
        )
        return left[::-1]

    def _add(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        quant: Quant | ChannelQuant | None,
        buffer: int,
    ) -> int:
        self.tensors.append(Tensor(self._unique(name), shape, dtype, quant, buffer))
        return len(self.tensors) - 1

    def _unique(self, name: str) -> str:
        unique, count = name, 0
        while unique in self._names:
            count += 1
            unique = f"{name}_{count}"
        self._names.add(unique)
        return unique


def _tensor(tensor: Tensor) -> Any:
    made = schema.TensorT()
    made.name = tensor.name
    made.shape = np.asarray(tensor.shape, np.int32)
    made.type = _TYPES[tensor.dtype]
    made.buffer = tensor.buffer
    made.hasRank = True
    if tensor.quant is not None:
        quantization = schema.QuantizationParametersT()
        if isinstance(tensor.quant, Quant):
            quantization.scale = np.asarray([tensor.quant.scale], np.float32)
            quantization.zeroPoint = np.asarray([tensor.quant.zero_point], np.int64)
        else:
            quantization.scale = tensor.quant.scales.astype(np.float32)
            quantization.zeroPoint = np.zeros(tensor.quant.scales.size, np.int64)
            quantization.quantizedDimension = tensor.quant.axis
        made.quantization = quantization
    return made


def aligned_buffer(data: NDArray[Any] | None) -> Any:
    """Return a buffer of the file as kernels want it; None is an empty one."""
    made = _Buffer()
    made.data = data
    return made


def packed(model: Any, size: int) -> bytes:
    """Return the bytes of the schema's objects, whose buffers hold ``size`` bytes."""
    builder = flatbuffers.Builder(0)
    # The builder's own bytearray is written with zeros first. These pages come as they are used, so
    # that room for names and scales costs nothing.
    builder.Bytes = np.zeros(size + size // 4 + 2**20, np.uint8).data
    builder.head = len(builder.Bytes)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Bytes[builder.Head() :])


def _identity(array: NDArray[Any]) -> Hashable:
    """Return what equal constants share: the bytes of a small one, the memory of a large one."""
    if array.nbytes <= _COMPARED_BYTES:
        return array.tobytes()
    return array.ctypes.data, array.strides, array.shape


def operator_code(code: int, version: int) -> Any:
    """Return an operator that the file uses, with the version that a runtime must know."""
    made = schema.OperatorCodeT()
    # Readers from before 2021 know only the byte-wide field.
    made.deprecatedBuiltinCode = min(code, schema.BuiltinOperator.PLACEHOLDER_FOR_GREATER_OP_CODES)
    made.builtinCode = code
    made.version = version
    return made


def _signature(inputs: dict[str, int], outputs: dict[str, int]) -> Any:
    made = schema.SignatureDefT()
    made.signatureKey = "serving_default"
    made.inputs = [_tensor_map(name, tensor) for name, tensor in inputs.items()]
    made.outputs = [_tensor_map(name, tensor) for name, tensor in outputs.items()]
    return made


def _tensor_map(name: str, tensor: int) -> Any:
    made = schema.TensorMapT()
    made.name = name
    made.tensorIndex = tensor
    return made
