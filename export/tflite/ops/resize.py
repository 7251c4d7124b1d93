"""Operators that trade pixels for channels or make more of them; int8 keeps its parameters."""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.schema_py_generated import BuiltinOperator as Op

from ...nodes import attribute, optional_input, shape_of, unsupported
from ..layout import NHWC
from ..lowering import Lowering
from ..quantization import finer
from .joining import picked

# What TFLite's two flags, align_corners and half_pixel_centers, are in ONNX.
_LINEAR: Final = {
    "half_pixel": (False, True),
    "pytorch_half_pixel": (False, True),
    "asymmetric": (False, False),
    "align_corners": (True, False),
}


def resize(ctx: Lowering, node: ir.Node) -> None:
    """Lower Resize of height and width, nearest or bilinear."""
    source, output = node.inputs[0], node.outputs[0]
    before, after = shape_of(source), shape_of(output)
    if len(before) != 4 or before[:2] != after[:2]:
        raise unsupported(node, f"it makes {after} of {before}", "resize height and width only")
    mode = attribute(node, "mode", "nearest")
    transform = attribute(node, "coordinate_transformation_mode", "half_pixel")
    scales = ctx.constant(optional_input(node, 2))
    if scales is not None and scales.size == 4:
        exact = np.asarray(before) * scales.astype(np.float64)
        if np.abs(exact - after).max() > 1e-3:
            raise unsupported(
                node, f"its scales {scales.tolist()} give no whole sizes", "resize to a fixed size"
            )
    if transform == "pytorch_half_pixel" and any(
        b > 1 and a == 1 for b, a in zip(before, after, strict=True)
    ):
        raise unsupported(
            node, f"it makes {after} of {before} with {transform}", "resize to 2 pixels or more"
        )
    if mode == "linear" and transform in _LINEAR and not attribute(node, "antialias", 0):
        code, options = Op.RESIZE_BILINEAR, schema.ResizeBilinearOptionsT()
        options.alignCorners, options.halfPixelCenters = _LINEAR[transform]
    elif mode == "nearest" and (half := _nearest(node, transform, before, after)) is not None:
        code, options = Op.RESIZE_NEAREST_NEIGHBOR, schema.ResizeNearestNeighborOptionsT()
        options.alignCorners, options.halfPixelCenters = False, half
    else:
        raise unsupported(
            node,
            f"its mode is {mode} with {transform}",
            "use bilinear, or nearest by a whole factor",
        )
    form = ctx.form(source)
    quant = form.quant
    if mode == "linear":
        # It computes: what nobody quantizes is not rounded either.
        wanted = ctx.wanted(output)
        if quant is not None and (wanted is None or finer(wanted, quant)):
            quant = None
        ctx.count(node, int8=quant is not None)
    data = ctx.convert(form, NHWC, quant).tensor
    size = ctx.writer.constant("size", np.asarray(after[2:], np.int32))
    ctx.writer.operator(code, [data, size], [ctx.new(output, NHWC, quant)], options)


def _nearest(
    node: ir.Node, transform: str, before: tuple[int, ...], after: tuple[int, ...]
) -> bool | None:
    """Return TFLite's half_pixel_centers for a nearest resize, None where it has no such one."""
    rounding = attribute(node, "nearest_mode", "round_prefer_floor")
    if transform == "asymmetric" and rounding == "floor":
        return False
    whole = all(a % b == 0 for a, b in zip(after, before, strict=True))
    if whole and transform in ("half_pixel", "pytorch_half_pixel") and "round" in rounding:
        return True
    return None


def depth_to_space(ctx: Lowering, node: ir.Node) -> None:
    """Lower DepthToSpace; TFLite orders channels by position first (DCR)."""
    options = schema.DepthToSpaceOptionsT()
    options.blockSize = block = int(attribute(node, "blocksize", 1))
    source = ctx.moved(node, Op.DEPTH_TO_SPACE, ctx.form(node.inputs[0]))
    form = ctx.convert(source, NHWC, source.quant)
    if attribute(node, "mode", "DCR") == "CRD":
        channels = np.arange(form.shape[1]).reshape(-1, block * block).T.ravel()
        form = picked(ctx, f"{node.outputs[0].name}_order", form, 1, channels)
    out = ctx.new(node.outputs[0], NHWC, form.quant)
    ctx.writer.operator(Op.DEPTH_TO_SPACE, [form.tensor], [out], options)


def space_to_depth(ctx: Lowering, node: ir.Node) -> None:
    """Lower SpaceToDepth; TFLite orders channels by position first (DCR)."""
    output = node.outputs[0]
    options = schema.SpaceToDepthOptionsT()
    options.blockSize = block = int(attribute(node, "blocksize", 1))
    source = ctx.moved(node, Op.SPACE_TO_DEPTH, ctx.form(node.inputs[0]))
    data = ctx.convert(source, NHWC, source.quant)
    made = ctx.temporary(str(output.name), shape_of(output), NHWC, data.quant)
    ctx.writer.operator(Op.SPACE_TO_DEPTH, [data.tensor], [made.tensor], options)
    if attribute(node, "mode", "DCR") == "CRD":
        channels = np.arange(made.shape[1]).reshape(block * block, -1).T.ravel()
        made = picked(ctx, f"{output.name}_order", made, 1, channels)
    ctx.set(output, made)
