"""onnxsim, and what it needs of a graph that came from elsewhere."""

from __future__ import annotations

import onnx
import onnxsim
from onnx import version_converter

from ..core.errors import GraphError
from ..core.values import INT16_OPSET
from .quantized import activation_bits
from .torch_onnx import OPSET

OLDEST_OPSET = 9


def to_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph at the project's opset, or at the one from which 16-bit Q/DQ exists.

    Raises:
        GraphError: It uses operators of another domain, or cannot be converted.
    """
    wanted = INT16_OPSET if activation_bits(model) == 16 else OPSET
    versions = {entry.domain: entry.version for entry in model.opset_import}
    used = {node.domain for node in model.graph.node} - {"", "ai.onnx"}
    if used:
        operators = sorted(
            {f"{n.domain}::{n.op_type}" for n in model.graph.node if n.domain in used}
        )
        raise GraphError(
            f"operators outside ONNX's own set: {', '.join(operators[:3])}; export the model "
            "without a runtime's optimisations"
        )
    version = versions.get("", versions.get("ai.onnx", 0))
    if version == wanted:
        return model
    if version < OLDEST_OPSET:
        raise GraphError(f"opset {version} is too old; export the model at opset {wanted}")
    try:
        return version_converter.convert_version(model, wanted)
    except (RuntimeError, ValueError) as error:
        raise GraphError(
            f"opset {version} cannot be converted to {wanted}: {error}; export it at opset {wanted}"
        ) from error


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with constants folded and no-ops removed.

    Raises:
        GraphError: onnxsim cannot read or check it.
    """
    try:
        simplified, _ = onnxsim.simplify(model)
        onnx.checker.check_model(simplified, full_check=True)
    except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
        raise GraphError(f"the graph cannot be simplified: {error}") from error
    del simplified.metadata_props[:]
    return inferred(simplified)


def inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with the types and shapes of all its values.

    Raises:
        GraphError: They contradict each other.
    """
    try:
        return onnx.shape_inference.infer_shapes(model, strict_mode=True)
    except onnx.shape_inference.InferenceError as error:
        reason = " ".join(str(error).split())
        raise GraphError(f"the graph's shapes contradict each other: {reason}") from error
