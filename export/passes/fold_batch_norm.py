"""Folds BatchNormalization into the layer before it; what has none becomes a depthwise Conv.

A 1x1 depthwise convolution has a scale per channel where it is quantized; a Mul by the factors
would have one for all of them.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...core.errors import GraphError
from .constants import add_constant


def fold_batch_norm(model: ir.Model) -> int:
    """Replace every BatchNormalization, in place.

    After a Conv or a Gemm (transB=1, alpha=beta=1) that nothing else reads, its factor goes into
    the weights and the bias; after a product of tokens by weights, which a Reshape to a matrix may
    follow, into the weights and an Add. Elsewhere it becomes a depthwise Conv, or x * factor +
    offset where it normalizes no image.

    Returns:
        How many there were.

    Raises:
        GraphError: One is in training mode.
    """
    nodes = [node for node in model.graph if node.op_type == "BatchNormalization"]
    for node in nodes:
        if node.attributes.get_int("training_mode", 0):
            raise GraphError(
                f"BatchNormalization (node {node.name!r}) depends on the "
                "images beside it (training mode); export the model after model.eval()"
            )
        _, gain, offset, mean, variance = (_constant(value) for value in node.inputs)
        assert gain is not None
        assert offset is not None
        assert mean is not None
        assert variance is not None
        factor = gain / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
        shift = offset - mean * factor
        source = node.inputs[0]
        assert source is not None
        producer = source.producer() if _is_read_once(source) else None
        product = _product(source)
        if product is not None:
            _fold_into_product(model.graph, product, factor, shift)
            folded = node.inputs[0]
            assert folded is not None
            ir.convenience.replace_all_uses_with(
                node.outputs[0], folded, replace_graph_outputs=True
            )
        elif producer is not None and _foldable(producer):
            _fold(model.graph, producer, factor, shift)
            ir.convenience.replace_all_uses_with(
                node.outputs[0], source, replace_graph_outputs=True
            )
        else:
            _expand(model.graph, node, source, factor, shift)
        model.graph.remove(node, safe=True)
    return len(nodes)


def _constant(value: ir.Value | None) -> NDArray[np.float64] | None:
    if value is None or value.const_value is None:
        return None
    return value.const_value.numpy().astype(np.float64)


def _is_read_once(value: ir.Value) -> bool:
    return len(value.uses()) == 1 and not value.is_graph_output()


def _product(value: ir.Value) -> ir.Node | None:
    """Return the MatMul by weights whose columns a matrix has, behind a Reshape or not."""
    if value.shape is None or len(value.shape) != 2 or not _is_read_once(value):
        return None
    node = value.producer()
    if node is not None and node.op_type == "Reshape":
        before = node.inputs[0]
        if before is None or before.shape is None or not _is_read_once(before):
            return None
        if not isinstance(value.shape[-1], int) or before.shape[-1] != value.shape[-1]:
            return None
        node = before.producer()
    if node is None or node.op_type != "MatMul":
        return None
    weights = _constant(node.inputs[1])
    return node if weights is not None and weights.ndim == 2 else None


def _fold_into_product(
    graph: ir.Graph, node: ir.Node, factor: NDArray[np.float64], shift: NDArray[np.float64]
) -> None:
    weights, product = _constant(node.inputs[1]), node.outputs[0]
    assert weights is not None
    name = f"{product.name}_folded"
    node.replace_input_with(1, add_constant(graph, f"{name}_weights", weights * factor))
    final = ir.Value(name=name, type=product.type, shape=product.shape)
    bias = add_constant(graph, f"{name}_bias", shift)
    add = ir.node("Add", [product, bias], outputs=[final], name=f"{name}_add")
    product.replace_all_uses_with(final)
    add.replace_input_with(0, product)
    graph.insert_after(node, add)


def _foldable(node: ir.Node) -> bool:
    if node.op_type not in {"Conv", "Gemm"} or _constant(node.inputs[1]) is None:
        return False
    if len(node.inputs) > 2 and node.inputs[2] is not None and _constant(node.inputs[2]) is None:
        return False
    if node.op_type == "Conv":
        return True
    attributes = node.attributes
    return (
        attributes.get_int("transB", 0) == 1
        and attributes.get_int("transA", 0) == 0
        and attributes.get_float("alpha", 1.0) == 1.0
        and attributes.get_float("beta", 1.0) == 1.0
    )


def _fold(
    graph: ir.Graph, node: ir.Node, factor: NDArray[np.float64], shift: NDArray[np.float64]
) -> None:
    weights = _constant(node.inputs[1])
    assert weights is not None
    bias = _constant(node.inputs[2]) if len(node.inputs) > 2 else None
    folded = weights * factor.reshape(-1, *[1] * (weights.ndim - 1))
    name = f"{node.inputs[1].name}_folded" if node.inputs[1] is not None else "folded"
    offset = shift if bias is None else bias * factor + shift
    new_bias = add_constant(graph, f"{name}_bias", offset)
    node.replace_input_with(1, add_constant(graph, name, folded))
    if len(node.inputs) > 2:
        node.replace_input_with(2, new_bias)
    else:
        node.resize_inputs(3)
        node.replace_input_with(2, new_bias)


def _expand(
    graph: ir.Graph,
    node: ir.Node,
    source: ir.Value,
    factor: NDArray[np.float64],
    shift: NDArray[np.float64],
) -> None:
    output = node.outputs[0]
    rank = 4 if source.shape is None else len(source.shape)
    name = output.name or node.name or "batch_norm"
    final = ir.Value(name=f"{name}_shifted", type=output.type, shape=output.shape)
    if rank == 4:
        weights = add_constant(graph, f"{name}_factor", factor.reshape(-1, 1, 1, 1))
        inputs = [source, weights, add_constant(graph, f"{name}_shift", shift)]
        nodes = [
            ir.node(
                "Conv",
                inputs,
                {"group": factor.size, "kernel_shape": [1, 1]},
                outputs=[final],
                name=f"{name}_conv",
            )
        ]
    else:
        shape = (-1, *[1] * (rank - 2))
        scaled = ir.Value(name=f"{name}_scaled", type=source.type, shape=source.shape)
        gain = add_constant(graph, f"{name}_factor", factor.reshape(shape))
        offset = add_constant(graph, f"{name}_shift", shift.reshape(shape))
        nodes = [
            ir.node("Mul", [source, gain], outputs=[scaled], name=f"{name}_mul"),
            ir.node("Add", [scaled, offset], outputs=[final], name=f"{name}_add"),
        ]
    graph.insert_before(node, nodes)
    ir.convenience.replace_all_uses_with(output, final, replace_graph_outputs=True)
