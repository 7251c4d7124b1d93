"""From an ONNX graph to the bytes of a TFLite file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
import onnx_ir as ir

from ...core.errors import GraphError
from ...core.values import TensorSpec
from ..nodes import COMPUTING, node_name, shape_of, unsupported
from .layout import plain, preferred
from .lowering import FloatWeights, Form, Lowering
from .ops import LOWERINGS
from .prepare import prepare
from .writer import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class TfliteModel:
    """A TFLite file and what it holds.

    Attributes:
        data: The file's bytes.
        input: As the file declares it: (1, H, W, C), float32, int8 or int16.
        output: As the file declares it: (1, classes), float32, int8 or int16.
        quantized: How many computations run in int8.
        left_float: The nodes that a quantized graph still computes in float32; of one that is
            quantized as it runs, those with weights.
        transposes: How many TRANSPOSE operators were inserted.
        forms: Which tensor holds a value of the ONNX graph, and how; it may have another shape.
    """

    data: bytes
    input: TensorSpec
    output: TensorSpec
    quantized: int
    left_float: tuple[str, ...]
    transposes: int
    forms: Mapping[str, Form] = field(repr=False)


def lower(
    model: onnx.ModelProto,
    *,
    weights: FloatWeights = "float32",
    description: str = "An image classifier, made by edgecls.",
) -> TfliteModel:
    """Lower an ONNX graph to TFLite, float or, where it has Q/DQ, int8 with its scales kept.

    Args:
        model: One input (N, C, H, W) and one output; opset 13 or later. A fixed or free batch
            becomes 1.
        weights: How weights that are computed with in float are stored; the values stay those of
            the graph, so that a weight that is no number of the smaller type stays float32.
        description: Stored in the file.

    Raises:
        GraphError: The graph is invalid, or its weights cannot be kept exactly.
        UnsupportedOperatorError: An operator, or a form of it, has no lowering.
    """
    graph = prepare(model).graph
    image, logits = graph.inputs[0], graph.outputs[0]
    ctx = Lowering(weights)
    if image.dtype != ir.DataType.FLOAT:
        raise GraphError(
            f"expected input {image.name!r} to be float32, found {image.dtype}; export the model "
            "in float32"
        )
    # A graph whose input is quantized at once takes codes.
    source = ctx.new(image, preferred(len(shape_of(image))), ctx.wanted(image))
    for node in graph:
        if node in ctx.done:
            continue
        if node.domain not in ("", "ai.onnx") or node.op_type not in LOWERINGS:
            raise unsupported(
                node,
                "it has no TFLite lowering",
                "replace it in the model by operators that have one before exporting it",
            )
        LOWERINGS[node.op_type](ctx, node)
    result = ctx.convert(ctx.form(logits), plain(len(shape_of(logits))), ctx.form(logits).quant)
    ctx.writer.rename(result.tensor, str(logits.name))
    in_spec = _spec(ctx.writer.tensors[source])
    out_spec = _spec(ctx.writer.tensors[result.tensor])
    left_float = _left_float(ctx, graph)
    ctx.release()
    return TfliteModel(
        data=ctx.writer.finish(
            inputs={in_spec.name: source},
            outputs={out_spec.name: result.tensor},
            description=description,
        ),
        input=in_spec,
        output=out_spec,
        quantized=ctx.quantized,
        left_float=left_float,
        transposes=ctx.writer.transposes,
        forms=_kept_forms(ctx),
    )


def _left_float(ctx: Lowering, graph: ir.Graph) -> tuple[str, ...]:
    operators = {node.op_type for node in graph}
    if "QuantizeLinear" in operators:
        return tuple(ctx.left_float)
    if "DynamicQuantizeLinear" in operators:
        computing = {node_name(node) for node in graph if node.op_type in COMPUTING}
        return tuple(name for name in ctx.left_float if name in computing)
    return ()


def _kept_forms(ctx: Lowering) -> dict[str, Form]:
    kept, found = ctx.writer.kept, {}
    for value, form in ctx.forms.items():
        tensor = form.tensor if form.tensor in kept else ctx.unreshaped(form.tensor)
        if tensor in kept:
            found[str(value.name)] = replace(form, tensor=kept[tensor])
    return found


def _spec(tensor: Tensor) -> TensorSpec:
    return TensorSpec(name=tensor.name, shape=tensor.shape, dtype=np.dtype(tensor.dtype).name)
