"""Brings an ONNX graph into the form that the lowering reads: batch 1, shapes known, folded."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from ...core.errors import GraphError
from ..passes.fix_batch import fix_batch
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
    graph_model = fix_batch(graph_model)
    fuse_gelu(graph_model)
    return graph_model
