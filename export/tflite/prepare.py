"""Brings an ONNX graph into the form that the lowering reads: batch 1, shapes known, folded."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript.optimizer import fold_constants

from ...core.errors import GraphError
from ..passes.fuse_gelu import fuse_gelu

# Before it, Softmax and others meant something else.
_OLDEST_OPSET = 13


def prepare(model: onnx.ModelProto) -> ir.Model:
    """Return the graph with batch 1, every shape known, and constant parts computed.

    Args:
        model: One image input and one output; not changed.

    Raises:
        GraphError: The graph is invalid, too old, or has other inputs or outputs.
    """
    try:
        graph_model = ir.from_proto(model)
        common.InlinePass()(graph_model)
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise GraphError(f"expected a valid ONNX model, found: {error}") from error
    graph = graph_model.graph
    opset = graph_model.opset_imports.get("", 0)
    if opset < _OLDEST_OPSET:
        raise GraphError(
            f"expected ONNX opset {_OLDEST_OPSET} or later, found {opset}; export the model again "
            "or convert it with onnx.version_converter"
        )
    common.RemoveInitializersFromInputsPass()(graph_model)
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise GraphError(
            f"expected one input and one output, found {len(graph.inputs)} "
            f"({', '.join(str(v.name) for v in graph.inputs)}) and {len(graph.outputs)} "
            f"({', '.join(str(v.name) for v in graph.outputs)}); cut the graph to its classifier"
        )
    _fix_batch(graph)
    try:
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(graph_model)
        fold_constants(
            graph_model,
            onnx_shape_inference=True,
            input_size_limit=1 << 40,
            output_size_limit=1 << 30,
            should_fold=_folds,
        )
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(graph_model)
        common.IdentityEliminationPass()(graph_model)
        fuse_gelu(graph_model)
        common.RemoveUnusedNodesPass()(graph_model)
        common.TopologicalSortPass()(graph_model)
        graph_model = common.ShapeInferencePass(strict_mode=True)(graph_model).model
    except Exception as error:
        # The passes raise whatever onnx's inference raises, wrapped several times.
        raise GraphError(f"the shapes of the graph cannot be inferred: {_root(error)}") from error
    _require_shapes(graph_model.graph)
    return graph_model


def _fix_batch(graph: ir.Graph) -> None:
    """Set the batch to 1 and forget every shape that was computed with another one."""
    image = graph.inputs[0]
    if image.shape is None or any(not isinstance(size, int) for size in image.shape[1:]):
        raise GraphError(
            f"expected input {image.name!r} to have a fixed size apart from the batch, found "
            f"{image.shape}; export the model with a fixed image size"
        )
    image.shape = ir.Shape([1, *(int(size) for size in image.shape[1:] if isinstance(size, int))])
    for node in graph:
        for value in node.outputs:
            value.shape = None


def _folds(node: ir.Node) -> bool:
    """Say whether a node of constants is computed here.

    A constant behind DequantizeLinear keeps its codes for whoever computes with it, unless that
    is itself a computation on nothing but constants.
    """
    users = [use.node for use in node.outputs[0].uses()]
    return node.op_type != "DequantizeLinear" or (
        bool(users) and all(_is_constant(value) for user in users for value in user.inputs)
    )


def _is_constant(value: ir.Value | None) -> bool:
    if value is None or value.const_value is not None:
        return True
    node = value.producer()
    return node is not None and node.op_type == "DequantizeLinear" and _is_constant(node.inputs[0])


def _require_shapes(graph: ir.Graph) -> None:
    for node in graph:
        for value in node.outputs:
            if value.shape is None or not value.shape.is_static():
                raise GraphError(
                    f"expected static shapes at batch 1, found {value.shape} at {value.name!r} "
                    f"({node.op_type}, node {node.name!r}); export the model with a fixed image "
                    "size and no control flow"
                )


def _root(error: BaseException) -> str:
    """Return the text of the first cause, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())
