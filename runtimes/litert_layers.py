"""Which operators of a ``.tflite`` file XNNPACK took, read from the interpreter that runs it.

The interpreter keeps the operators of the file and appends one DELEGATE for each part that was
taken, with the tensors that cross the part's border. What the DELEGATE's outputs need, back to its
inputs, is exactly that part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Any, Final

import numpy as np

from .layer import Layer, precision_of

DELEGATE: Final = "DELEGATE"

# Operators with weights, or with two factors: where their activation and their weights stand.
_FACTORS: Final = {
    "CONV_2D": (0, 1), "DEPTHWISE_CONV_2D": (0, 1), "FULLY_CONNECTED": (0, 1),
    "BATCH_MATMUL": (0, 1), "TRANSPOSE_CONV": (2, 1),
}  # fmt: skip


def layers_of(interpreter: Any) -> tuple[Layer, ...]:
    """Return the layers of an interpreter whose tensors are allocated, in the file's order."""
    found = interpreter._get_ops_details()
    tensors = {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}
    operators = [operator for operator in found if operator["op_name"] != DELEGATE]
    taken = _taken(operators, [one for one in found if one["op_name"] == DELEGATE])
    return tuple(
        Layer(
            name=_name(operator, tensors),
            operator=operator["op_name"],
            where="XNNPACK" if operator["index"] in taken else "LiteRT kernels",
            delegated=operator["index"] in taken,
            precision=_precision(operator),
            macs=_macs(operator, tensors),
        )
        for operator in operators
    )


def _taken(operators: Sequence[Any], delegates: Sequence[Any]) -> set[int]:
    """Return the indices of the operators that the delegates replace."""
    makers = {int(tensor): one for one in operators for tensor in one["outputs"]}
    taken: set[int] = set()
    for delegate in delegates:
        border = set(_indices(delegate["inputs"]))
        waiting = list(_indices(delegate["outputs"]))
        while waiting:
            tensor = waiting.pop()
            maker = makers.get(tensor)
            if tensor in border or maker is None or maker["index"] in taken:
                continue
            taken.add(maker["index"])
            waiting += _indices(maker["inputs"])
    return taken


def _indices(tensors: Iterable[Any]) -> Iterable[int]:
    return (int(tensor) for tensor in tensors if tensor >= 0)  # -1: an input that is left out


def _name(operator: Any, tensors: Mapping[int, Any]) -> str:
    first = next(iter(_indices(operator["outputs"])), None)
    found = tensors.get(first) if first is not None else None
    return str(found["name"]) if found else f"operator {operator['index']}"


def _precision(operator: Any) -> str:
    # Types are given of the inputs that are there: what is left out stands behind these.
    reads = [np.dtype(kind).name for kind in operator["operand_types"]]
    gives = [np.dtype(kind).name for kind in operator["result_types"]]
    activation, weights = _FACTORS.get(operator["op_name"], (0, 0))
    if len(reads) <= max(activation, weights):
        return ""
    return precision_of(reads[activation], reads[weights], gives[0] if gives else "")


def _macs(operator: Any, tensors: Mapping[int, Any]) -> int | None:
    """Return the multiplications of weights or of two matrices; 0 for all other operators."""
    kind = operator["op_name"]
    if kind not in _FACTORS:
        return 0
    activation, weights = _FACTORS[kind]
    try:
        source = [int(size) for size in tensors[operator["inputs"][activation]]["shape"]]
        factor = [int(size) for size in tensors[operator["inputs"][weights]]["shape"]]
        result = [int(size) for size in tensors[operator["outputs"][0]]["shape"]]
    except KeyError:
        return None
    if kind == "CONV_2D":
        return prod(result) * prod(factor[1:])
    if kind == "DEPTHWISE_CONV_2D":
        return prod(result) * prod(factor[1:3])
    if kind == "FULLY_CONNECTED":
        return prod(result) * factor[-1]
    if kind == "TRANSPOSE_CONV":
        return prod(source) * prod(factor[:3])
    # Either matrix may be stored transposed: the left one holds rows x inner sizes.
    return prod(result) * prod(source[-2:]) // result[-2]
