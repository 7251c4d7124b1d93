"""Adds constants to a graph that a pass works on."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray


def add_constant(graph: ir.Graph, name: str, values: NDArray[np.float64]) -> ir.Value:
    """Return a new float32 initializer, called ``name`` or, where that is taken, ``name_2``, ..."""
    taken = graph.initializers
    unique = name
    count = 1
    while unique in taken:
        count += 1
        unique = f"{name}_{count}"
    value = ir.Value(
        name=unique,
        const_value=ir.tensor(values.astype(np.float32), name=unique),
        type=ir.TensorType(ir.DataType.FLOAT),
        shape=ir.Shape(values.shape),
    )
    graph.register_initializer(value)
    return value
