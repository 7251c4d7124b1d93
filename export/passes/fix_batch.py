"""Fixes the batch to 1 and computes all that then is constant.

A graph for any batch computes shapes, position tables, attention masks and the indices of adaptive
pools at run time, from the batch. For one image they are constants, which ONNX's reference
evaluator computes here.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import PassResult, common
from onnxscript.optimizer import fold_constants

from ...core.errors import GraphError
from .contract import GraphPass


class FixBatch(GraphPass):
    """Makes a graph one for one image, every shape known, constants as initializers.

    Values that are left keep their names, so that ranges measured on the graph still fit.

    Raises:
        GraphError: The image's size is free, or a shape depends on what is in the image.
    """

    def requires(self, model: ir.Model) -> None:
        """One input, the image (N, C, H, W), N free or fixed."""
        names = [str(value.name) for value in model.graph.inputs if not value.is_initializer()]
        self.rely_on("one input", [] if len(names) == 1 else [", ".join(names) or "none"])

    def call(self, model: ir.Model) -> PassResult:
        """Fix the batch, infer, compute."""
        _set_batch(model.graph)
        _compute_constants(model)
        _require_shapes(model.graph)
        return PassResult(model, modified=True)

    def ensures(self, model: ir.Model) -> None:
        """Batch 1; of every value the type and the shape; no constant that is a node."""
        image = model.graph.inputs[0]
        batch = None if image.shape is None else image.shape[0]
        self.promise("batch 1", [] if batch == 1 else [f"{batch} of {image.name!r}"])
        unknown = (
            f"{value.type} and {value.shape} of {value.name!r}"
            for node in model.graph
            for value in node.outputs
            if value.dtype is None or value.shape is None or not value.shape.is_static()
        )
        self.promise("known types and static shapes", unknown)
        nodes = (f"{node.name!r}" for node in model.graph if node.op_type == "Constant")
        self.promise("constants as initializers", nodes)


def _set_batch(graph: ir.Graph) -> None:
    """Set the batch to 1 and forget every shape that was computed with another one."""
    image = graph.inputs[0]
    if image.shape is None or any(not isinstance(size, int) for size in image.shape[1:]):
        raise GraphError(
            f"expected input {image.name!r} to have a fixed size apart from the batch, found "
            f"{image.shape}; export the model with a fixed image size"
        )
    if 0 in image.shape[1:]:
        raise GraphError(f"expected input {image.name!r} to hold numbers, found {image.shape}")
    image.shape = ir.Shape([1, *(int(size) for size in image.shape[1:] if isinstance(size, int))])
    for node in graph:
        for value in node.outputs:
            value.shape = None


def _compute_constants(model: ir.Model) -> None:
    try:
        lift = common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)
        lift(model)
        fold_constants(
            model,
            onnx_shape_inference=True,
            input_size_limit=1 << 40,
            output_size_limit=1 << 30,
            should_fold=_folds,
        )
        lift(model)
        common.IdentityEliminationPass()(model)
        common.RemoveUnusedNodesPass()(model)
        common.TopologicalSortPass()(model)
        common.ShapeInferencePass(strict_mode=True)(model)
    except Exception as error:
        # The passes raise whatever onnx's inference raises, wrapped several times.
        raise GraphError(f"the shapes of the graph cannot be inferred: {_root(error)}") from error


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
            if 0 in value.shape.numpy():
                raise GraphError(
                    f"expected every value to hold numbers, found shape {value.shape} at "
                    f"{value.name!r} ({node.op_type}, node {node.name!r}); leave out what is empty"
                )


def _root(error: BaseException) -> str:
    """Return the text of the first cause, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())
