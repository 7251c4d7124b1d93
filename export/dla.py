"""Whether a node can run on a deep learning accelerator, as far as NVIDIA's page says."""

from __future__ import annotations

from typing import Literal

import onnx

from ..targets.tensorrt_onnx import (
    DLA_ACTIVATIONS,
    DLA_CHANNELS,
    DLA_ELEMENTWISE,
    DLA_KERNEL,
    DLA_LRN_WINDOWS,
    DLA_NEVER,
    DLA_STRIDE,
)

Shapes = dict[str, list[int]]
Runs = Literal["dla", "gpu", "unknown"]


def judge(
    node: onnx.NodeProto, shapes: Shapes, constants: dict[str, onnx.TensorProto]
) -> tuple[Runs, str]:
    """Return where a node runs, and why not on the DLA.

    Args:
        node: Of a graph for TensorRT.
        shapes: Of the tensors that are known; 0 is a free size.
        constants: By name.

    Source: the summary of ``targets.tensorrt_onnx.DLA_SOURCE``.
    """
    operator = node.op_type
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    if operator in DLA_NEVER:
        return "gpu", "normalization over an image"
    reason: str | None = None
    if operator in DLA_ACTIVATIONS:
        reason = ""
    elif operator == "Clip":
        low = constants.get(node.input[1]) if len(node.input) > 1 else None
        at_zero = low is not None and float(onnx.numpy_helper.to_array(low).reshape(-1)[0]) == 0
        reason = "" if at_zero else "clips below other than at 0"
    elif operator in ("Conv", "ConvTranspose", "Gemm"):
        reason = _convolution(operator, attributes, shapes.get(node.input[1], []))
    elif operator == "Concat":
        reason = "" if attributes["axis"] in (1, -3) else "joins another axis than the channels"
    elif operator in DLA_ELEMENTWISE:
        reason = ""
    elif operator == "LRN":
        reason = "" if attributes["size"] in DLA_LRN_WINDOWS else "a window not of 3, 5, 7 or 9"
    elif operator == "PRelu":
        reason = "" if node.input[1] in constants else "a slope that is computed"
    if reason is None:
        return "unknown", "no rule for it is recorded here"
    if reason:
        return "gpu", reason
    shape = shapes.get(node.output[0])
    if shape is None:
        return "unknown", "its shape is not known"
    if len(shape) != 4 and operator != "Gemm":
        return "gpu", "not of two spatial axes"
    return "dla", ""


def _convolution(operator: str, attributes: dict[str, object], weight: list[int]) -> str:
    if operator == "Gemm":
        return "" if all(size in DLA_CHANNELS for size in weight) else "over 8192 channels"
    if weight and len(weight) != 4:
        return "not of two dimensions"
    kernel = attributes.get("kernel_shape") or weight[2:]
    strides = attributes.get("strides") or [1]
    assert isinstance(kernel, list)
    assert isinstance(strides, list)
    if any(size not in DLA_KERNEL for size in kernel):
        return f"kernel {kernel}, expected 1 to 32"
    if any(size not in DLA_STRIDE for size in strides):
        return f"stride {strides}, expected 1 to 8"
    if any(size not in DLA_CHANNELS for size in weight[:2]):
        return "over 8192 channels"
    if operator == "ConvTranspose":
        pads, dilations = attributes.get("pads") or [], attributes.get("dilations") or []
        assert isinstance(pads, list)
        assert isinstance(dilations, list)
        if any(pads):
            return "padding, expected none"
        if attributes.get("group", 1) != 1 or any(step != 1 for step in dilations):
            return "groups or dilations"
    return ""
