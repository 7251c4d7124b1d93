"""Checks a graph against what the TensorRT of a JetPack takes, before it ships.

What its parser would refuse is an error here, on the workstation, with the node's name. What a DLA
would leave to the GPU is a report: such a graph runs all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec
import numpy as np
import onnx

from ..core.errors import GraphError, UnsupportedOperatorError
from ..targets.jetpack import JETPACKS, JetPack, Module, dla_cores
from ..targets.tensorrt_onnx import (
    FP8,
    FP8_COMPUTE_CAPABILITY,
    OLDEST_OPSET,
    RESIZE_MODES,
    TYPES,
    newest_opset,
    takes,
)
from .dla import judge


class DlaNode(msgspec.Struct, frozen=True, kw_only=True):
    """Where a node runs when the engine is built for a DLA.

    Attributes:
        node: Its name.
        operator: Its ONNX name.
        runs: "dla"; "gpu", it falls back; "unknown": no source says.
        reason: Why; empty for "dla".
    """

    node: str
    operator: str
    runs: Literal["dla", "gpu", "unknown"]
    reason: str = ""


class Preflight(msgspec.Struct, frozen=True, kw_only=True):
    """What a check of a graph found that is no error.

    Attributes:
        jetpack: Its version.
        tensorrt: The TensorRT that comes with it.
        module: The module's name; None where none was given.
        operators: How many nodes of each.
        dla_cores: How many the module's TensorRT can use.
        dla: Per node, where there are such cores.
        notes: What else to know about the DLA.
    """

    jetpack: str
    tensorrt: str
    module: str | None
    operators: dict[str, int]
    dla_cores: int = 0
    dla: tuple[DlaNode, ...] = ()
    notes: tuple[str, ...] = ()


def preflight(model: onnx.ModelProto, jetpack: JetPack, module: Module | None) -> Preflight:
    """Check a graph for a JetPack, and for a module where one is given.

    Raises:
        UnsupportedOperatorError: A node that the TensorRT's parser refuses.
        GraphError: The opset, or a tensor's type, is none that it takes.
    """
    _check_opset(model, jetpack)
    nodes = list(_nodes(model.graph))
    constants = _constants(model, nodes)
    functions = {(function.domain, function.name) for function in model.functions}
    nodes += [node for function in model.functions for node in function.node]
    for node in nodes:
        if (node.domain, node.op_type) not in functions:
            _check_operator(node, jetpack)
            _check_form(node, jetpack, constants)
    _check_types(model, jetpack, module)
    count: dict[str, int] = {}
    for node in nodes:
        count[node.op_type] = count.get(node.op_type, 0) + 1
    cores = dla_cores(jetpack, module) if module is not None else 0
    return Preflight(
        jetpack=jetpack.version,
        tensorrt=jetpack.tensorrt,
        module=module.name if module is not None else None,
        operators=dict(sorted(count.items())),
        dla_cores=cores,
        dla=_on_dla(model, nodes, constants) if cores else (),
        notes=_dla_notes(model, jetpack, module, cores),
    )


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield a graph's nodes and those of its branches and loops."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs]:
                yield from _nodes(inner)


def _constants(
    model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto]
) -> dict[str, onnx.TensorProto]:
    found = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in nodes:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    found[node.output[0]] = attribute.t
    return found


def _check_opset(model: onnx.ModelProto, jetpack: JetPack) -> None:
    version = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    newest = newest_opset(jetpack.tensorrt_release)
    if not OLDEST_OPSET <= version <= newest:
        raise GraphError(
            f"opset {version}: TensorRT {jetpack.tensorrt} (JetPack {jetpack.version}) takes opset "
            f"{OLDEST_OPSET} to {newest}; export the model at opset {newest}"
        )


def _check_operator(node: onnx.NodeProto, jetpack: JetPack) -> None:
    if node.domain not in ("", "ai.onnx"):
        raise _refused(
            node, jetpack, f"domain {node.domain!r} is not ONNX's", "export it without a plugin"
        )
    if takes(node.op_type, jetpack.tensorrt_release):
        return
    later = [row.version for row in JETPACKS if takes(node.op_type, row.tensorrt_release)]
    fix = f"JetPack {', '.join(later)} takes it" if later else "replace it in the model"
    raise _refused(node, jetpack, "its parser does not have it", fix)


def _check_form(
    node: onnx.NodeProto, jetpack: JetPack, constants: dict[str, onnx.TensorProto]
) -> None:
    """Refuse the forms of operators that the table of operators excepts."""
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    operator = node.op_type
    found = ""
    if operator in ("QuantizeLinear", "DequantizeLinear"):
        found = _quantization(node, constants)
    elif operator in ("AveragePool", "MaxPool", "LpPool"):
        if operator != "LpPool" and len(attributes["kernel_shape"]) not in (2, 3):
            found = f"{len(attributes['kernel_shape'])}D pooling, expected 2D or 3D"
        elif any(step != 1 for step in attributes.get("dilations", ())):
            found = "a pooling window with dilations"
        elif operator == "MaxPool" and len(node.output) > 1 and node.output[1]:
            found = "the output Indices"
    elif operator == "LayerNormalization" and any(node.output[1:]):
        found = "outputs beside the first"
    elif operator == "Resize":
        mode = attributes.get("mode", b"nearest").decode()
        if mode not in RESIZE_MODES:
            found = f"mode {mode!r}, expected {' or '.join(RESIZE_MODES)}"
        elif attributes.get("antialias"):
            found = "antialiasing"
    elif operator.startswith("Reduce"):
        if len(node.input) > 1 and node.input[1] and node.input[1] not in constants:
            found = "axes that are computed, expected constants"
    elif operator == "ScatterND" and attributes.get("reduction", b"none") != b"none":
        found = f"reduction {attributes['reduction'].decode()!r}"
    if found:
        raise _refused(node, jetpack, found, "replace it in the model")


def _quantization(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> str:
    """Return what of a Q/DQ is not explicit, symmetric quantization to int8; empty where all is."""
    scale = constants.get(node.input[1])
    if scale is not None and not (onnx.numpy_helper.to_array(scale).astype(np.float64) > 0).all():
        return "a scale that is not positive"
    zero = constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if zero is None:
        return "" if len(node.input) < 3 or not node.input[2] else "a zero point that is computed"
    kind = onnx.TensorProto.DataType.Name(zero.data_type)
    if kind not in ("INT8", "INT4", FP8):
        return f"quantization to {kind}, expected INT8"
    values = onnx.numpy_helper.to_array(zero).astype(np.float64)
    return "a zero point that is not 0" if np.any(values) else ""


def _check_types(model: onnx.ModelProto, jetpack: JetPack, module: Module | None) -> None:
    graph = model.graph
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.HasField("tensor_type"):
            kinds[value.name] = value.type.tensor_type.elem_type
    ends = {value.name for value in (*graph.input, *graph.output)}
    quantized = {name for node in graph.node if "Quantize" in node.op_type or
                 node.op_type == "DequantizeLinear" for name in node.input}  # fmt: skip
    title = f"TensorRT {jetpack.tensorrt} (JetPack {jetpack.version})"
    for name, kind in kinds.items():
        told = onnx.TensorProto.DataType.Name(kind)
        if told == "UNDEFINED":
            continue
        if told not in TYPES or (told == "UINT8" and name not in ends | quantized):
            raise GraphError(
                f"tensor {name!r} {_at(graph, name)} is {told}: {title} takes "
                f"{', '.join(sorted(TYPES))}, UINT8 only as the graph's input or output; cast it"
            )
        if told == FP8 and module and module.compute_capability < FP8_COMPUTE_CAPABILITY:
            major, minor = module.compute_capability
            raise GraphError(
                f"tensor {name!r} {_at(graph, name)} is {told}: the {module.title} (compute "
                f"capability {major}.{minor}) has no FP8; use int8 or fp16"
            )


def _at(graph: onnx.GraphProto, tensor: str) -> str:
    for node in graph.node:
        if tensor in (*node.input, *node.output):
            return f"at {node.op_type} (node {node.name!r})"
    return "of the graph"


def _refused(node: onnx.NodeProto, jetpack: JetPack, found: str, fix: str) -> Exception:
    return UnsupportedOperatorError(
        operator=node.op_type,
        node=node.name or next(iter(node.output), ""),
        found=f"{found}: TensorRT {jetpack.tensorrt} (JetPack {jetpack.version}) does not take it",
        fix=fix,
    )


def _on_dla(
    model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], constants: dict[str, onnx.TensorProto]
) -> tuple[DlaNode, ...]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output, *graph.value_info)
        if value.type.tensor_type.HasField("shape")
    } | {name: list(tensor.dims) for name, tensor in constants.items()}
    found = []
    for node in nodes:
        if node.op_type not in ("Constant", "QuantizeLinear", "DequantizeLinear"):
            runs, reason = judge(node, shapes, constants)
            name = node.name or node.output[0]
            found.append(DlaNode(node=name, operator=node.op_type, runs=runs, reason=reason))
    return tuple(found)


def _dla_notes(
    model: onnx.ModelProto, jetpack: JetPack, module: Module | None, cores: int
) -> tuple[str, ...]:
    if module is None:
        return ()
    if not cores:
        if module.dla_cores:
            return (f"TensorRT {jetpack.tensorrt} does not drive the DLA of the {module.title}",)
        return (f"the {module.title} has no DLA",)
    notes = []
    if any(tensor.data_type == onnx.TensorProto.FLOAT and tensor.dims
           for tensor in model.graph.initializer):  # fmt: skip
        notes.append("a DLA computes in FP16 and INT8 only: a graph of float32 runs on the GPU")
    if any(not dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim):
        notes.append("a DLA takes fixed shapes only: its engine is for one size of batch")
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        # https://developer.nvidia.cn/blog/tensorrt-deep-learning-accelerator-cn
        notes.append(
            "a DLA does not take Q/DQ: for INT8 on it, write a calibration cache "
            "(edgecls calibrate merge) and build the float graph with it"
        )
    return tuple(notes)
