"""Adds constants to a graph that a pass works on."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import DTypeLike, NDArray


def add_constant(
    graph: ir.Graph, name: str, values: NDArray[Any], dtype: DTypeLike = np.float32
) -> ir.Value:
    """Return a new initializer, called ``name`` or, where that is taken, ``name_2``, ..."""
    taken = graph.initializers
    unique = name
    count = 1
    while unique in taken:
        count += 1
        unique = f"{name}_{count}"
    tensor = ir.tensor(np.array(values, dtype), name=unique)
    value = ir.Value(
        name=unique,
        const_value=tensor,
        type=ir.TensorType(tensor.dtype),
        shape=ir.Shape(values.shape),
    )
    graph.register_initializer(value)
    return value
