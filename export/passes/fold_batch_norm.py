"""Folds BatchNormalization into the layer before it; what has none becomes a depthwise Conv.

A 1x1 depthwise convolution has a scale per channel where it is quantized; a Mul by the factors
would have one for all of them.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import PassResult

from ...core.errors import GraphError
from ..nodes import dequantized, node_name
from .constants import add_constant
from .contract import GraphPass


class FoldBatchNorm(GraphPass):
    """Replaces every BatchNormalization.

    After a Conv or a Gemm (transB=1, alpha=beta=1) that nothing else reads, its factor goes into
    the weights and the bias; after a product of tokens by weights, which a Reshape to a matrix may
    follow, into the weights and an Add. Weights that are int8 codes keep them, but for their sign
    where the factor is negative: it goes into their scales. Elsewhere it becomes a depthwise Conv,
    or x * factor + offset where it normalizes no image.

    Raises:
        GraphError: One is in training mode, or its parameters are computed.
    """

    def call(self, model: ir.Model) -> PassResult:
        """Fold each."""
        nodes = [node for node in model.graph if node.op_type == "BatchNormalization"]
        for node in nodes:
            _replace(model.graph, node)
        return PassResult(model, modified=bool(nodes))

    def ensures(self, model: ir.Model) -> None:
        """None is left."""
        offenders = (
            f"node {node_name(node)!r}"
            for node in model.graph
            if node.op_type == "BatchNormalization"
        )
        self.promise("no BatchNormalization", offenders)


def _replace(graph: ir.Graph, node: ir.Node) -> None:
    factor, shift = _factor_and_shift(node)
    source = node.inputs[0]
    assert source is not None
    producer = source.producer() if _is_read_once(source) else None
    product = _product(source)
    if product is not None:
        _fold_into_product(graph, product, factor, shift)
        folded = node.inputs[0]
        assert folded is not None
        final = folded
    elif producer is not None and _foldable(producer):
        _fold(graph, producer, factor, shift)
        final = source
    else:
        final = _expand(graph, node, source, factor, shift)
    output = node.outputs[0]
    ir.convenience.replace_all_uses_with(output, final, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    # It is the normalized value now: ranges go by the name.
    final.name = output.name
    if final.type is None:
        final.type = output.type


def _factor_and_shift(node: ir.Node) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what a BatchNormalization multiplies each channel by, and then adds.

    Raises:
        GraphError: That is not known before it runs.
    """
    if node.attributes.get_int("training_mode", 0):
        raise GraphError(
            f"BatchNormalization (node {node.name!r}) depends on the "
            "images beside it (training mode); export the model after model.eval()"
        )
    gain, offset, mean, variance = (_constant(value) for value in node.inputs[1:])
    if gain is None or offset is None or mean is None or variance is None:
        raise GraphError(
            f"BatchNormalization (node {node_name(node)!r}): expected constant parameters, found "
            "computed ones; export the model with its weights as initializers"
        )
    factor = gain / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
    return factor, offset - mean * factor


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


def _dequantize(value: ir.Value | None) -> ir.Node | None:
    """Return the DequantizeLinear of symmetric int8 weights that nothing shares."""
    node = value.producer() if value is not None else None
    if value is None or node is None or node.op_type != "DequantizeLinear":
        return None
    codes, scale, zero_point = (_constant(v) for v in (*node.inputs, None)[:3])
    if codes is None or scale is None or scale.ndim > 1 or len(value.uses()) > 1:
        return None
    symmetric = zero_point is None or not zero_point.any()
    first = scale.ndim == 0 or node.attributes.get_int("axis", 1) % codes.ndim == 0
    return node if symmetric and first and codes.min(initial=0) > -128 else None


def _bias(node: ir.Node) -> NDArray[np.float64] | None:
    """Return a bias as float; zeros where there is none, None where it is computed."""
    value = node.inputs[2] if len(node.inputs) > 2 else None
    if value is None:
        return np.zeros(1)
    producer = value.producer()
    if producer is None or producer.op_type != "DequantizeLinear":
        return _constant(value)
    return dequantized(producer)


def _foldable(node: ir.Node) -> bool:
    if node.op_type not in {"Conv", "Gemm"} or _bias(node) is None:
        return False
    if _constant(node.inputs[1]) is None and _dequantize(node.inputs[1]) is None:
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
    bias = _bias(node)
    assert bias is not None
    name = f"{node.inputs[1].name}_folded" if node.inputs[1] is not None else "folded"
    weights = _constant(node.inputs[1])
    if weights is None:
        _fold_into_scales(graph, node, factor, name)
    else:
        folded = weights * factor.reshape(-1, *[1] * (weights.ndim - 1))
        node.replace_input_with(1, add_constant(graph, name, folded))
    new_bias = add_constant(graph, f"{name}_bias", bias * factor + shift)
    if len(node.inputs) < 3:
        node.resize_inputs(3)
    node.replace_input_with(2, new_bias)


def _fold_into_scales(
    graph: ir.Graph, node: ir.Node, factor: NDArray[np.float64], name: str
) -> None:
    """Multiply the scales of int8 weights; a factor of 0 makes codes 0, at the scale they had."""
    dequantize = _dequantize(node.inputs[1])
    assert dequantize is not None
    codes, scale = _constant(dequantize.inputs[0]), _constant(dequantize.inputs[1])
    assert codes is not None
    assert scale is not None
    signed = codes * np.sign(factor).reshape(-1, *[1] * (codes.ndim - 1))
    scales = np.where(factor == 0.0, scale, scale * np.abs(factor))
    made = ir.Value(
        name=f"{name}_dequantized", type=ir.TensorType(ir.DataType.FLOAT),
        shape=ir.Shape(codes.shape),
    )  # fmt: skip
    inputs = [
        add_constant(graph, f"{name}_codes", signed, np.int8),
        add_constant(graph, f"{name}_scale", scales),
        add_constant(graph, f"{name}_zero_point", np.zeros(scales.shape), np.int8),
    ]
    graph.insert_before(
        node,
        ir.node("DequantizeLinear", inputs, {"axis": 0}, outputs=[made], name=f"{name}_dequantize"),
    )
    node.replace_input_with(1, made)
    graph.remove(dequantize, safe=True)


def _expand(
    graph: ir.Graph,
    node: ir.Node,
    source: ir.Value,
    factor: NDArray[np.float64],
    shift: NDArray[np.float64],
) -> ir.Value:
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
    return final
