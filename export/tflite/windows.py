"""Windows that slide over an image: kernel, strides, dilations and padding.

TFLite knows SAME and VALID; every other padding becomes a PAD in front.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from ..nodes import attribute, shape_of
from .layout import NHWC, Shape
from .lowering import Form, Lowering
from .quantization import Quant

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Window:
    """A 2-D window; pads are (before, after) for height and for width."""

    kernel: Pair
    strides: Pair
    dilations: Pair
    pads: tuple[Pair, Pair]

    @classmethod
    def of(cls, node: ir.Node, kernel: Pair) -> Window:
        """Return the window of a Conv or pooling node over one or two axes."""
        strides = _pair(attribute(node, "strides", (1, 1)))
        dilations = _pair(attribute(node, "dilations", (1, 1)))
        found = [int(pad) for pad in attribute(node, "pads", (0, 0, 0, 0))]
        if len(found) == 2:
            found = [0, found[0], 0, found[1]]
        pads = ((found[0], found[2]), (found[1], found[3]))
        auto = attribute(node, "auto_pad", "NOTSET")
        window = cls(kernel, strides, dilations, pads)
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            height, width = (1, *shape_of(node.inputs[0])[2:])[-2:]
            upper = (window._same(0, height), window._same(1, width))
            if auto == "SAME_LOWER":
                upper = (upper[0][::-1], upper[1][::-1])
            return replace(window, pads=upper)
        return replace(window, pads=((0, 0), (0, 0))) if auto == "VALID" else window

    def extent(self, axis: int) -> int:
        """Return how many pixels the window spans."""
        return (self.kernel[axis] - 1) * self.dilations[axis] + 1

    def size(self, axis: int, length: int) -> int:
        """Return how many positions the window has over ``length`` padded pixels."""
        return (length - self.extent(axis)) // self.strides[axis] + 1

    def is_same(self, sizes: Sequence[int]) -> bool:
        """Say whether TFLite's SAME has these pads, and so the same positions, over an image."""
        return all(
            self.pads[axis] == self._same(axis, size)
            and self.size(axis, size + sum(self.pads[axis])) == -(-size // self.strides[axis])
            for axis, size in enumerate(sizes)
        )

    def _same(self, axis: int, length: int) -> Pair:
        positions = -(-length // self.strides[axis])
        total = max((positions - 1) * self.strides[axis] + self.extent(axis) - length, 0)
        return total // 2, total - total // 2


def as_image(ctx: Lowering, form: Form) -> Form:
    """Return (N, C, L) as (N, C, 1, L), an image as it is."""
    if len(form.shape) == 4:
        return form
    form = ctx.padded(form)
    return ctx.reshape(form, image_shape(form.shape))


def image_shape(shape: Shape) -> Shape:
    """Return (N, C, 1, L) for (N, C, L), any other shape as it is."""
    return (*shape[:2], 1, shape[2]) if len(shape) == 3 else shape


def place(ctx: Lowering, form: Form, window: Window, quant: Quant | None) -> tuple[int, bool]:
    """Return the NHWC tensor that a zero-padded window slides over, and whether it is SAME.

    Zeros that surround the value already are joined with the window's own.
    """
    if form.pads is not None and form.pads[:2] == ((0, 0), (0, 0)):
        own = (_add(window.pads[0], form.pads[2]), _add(window.pads[1], form.pads[3]))
        window, form = replace(window, pads=own), replace(form, pads=None)
    form = ctx.convert(form, NHWC, quant)
    if window.is_same(form.shape[2:]):
        return form.tensor, True
    return surround(ctx, form, window).tensor, False


def surround(ctx: Lowering, form: Form, window: Window) -> Form:
    """Return an NHWC form with the window's zeros around it."""
    if not any(map(any, window.pads)):
        return form
    return ctx.padded(replace(form, pads=((0, 0), (0, 0), *window.pads)))


def _pair(values: Sequence[int]) -> Pair:
    """Return height and width; what has only a length lies along the width."""
    first, second = (1, *values)[-2:]
    return int(first), int(second)


def _add(a: Pair, b: Pair) -> Pair:
    return a[0] + b[0], a[1] + b[1]
