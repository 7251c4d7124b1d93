"""Brings an ONNX graph into the form that the lowering reads: batch 1, shapes known, folded."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from ...core.errors import GraphError
from ..passes.contract import OLDEST_OPSET, Pipeline, opset
from ..passes.fix_batch import FixBatch
from ..passes.fuse_gelu import FuseGelu


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
    found = opset(graph_model)
    if found < OLDEST_OPSET:
        raise GraphError(
            f"expected ONNX opset {OLDEST_OPSET} or later, found {found}; export the model again "
            "or convert it with onnx.version_converter"
        )
    common.RemoveInitializersFromInputsPass()(graph_model)
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise GraphError(
            f"expected one input and one output, found {len(graph.inputs)} "
            f"({', '.join(str(v.name) for v in graph.inputs)}) and {len(graph.outputs)} "
            f"({', '.join(str(v.name) for v in graph.outputs)}); cut the graph to its classifier"
        )
    return Pipeline(FixBatch(), FuseGelu())(graph_model).model
