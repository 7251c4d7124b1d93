"""How a tensor of the TFLite file holds a value of the ONNX graph.

ONNX keeps images as NCHW, TFLite as NHWC. Instead of transposing, every tensor carries the
permutation that leads back to its value; constants are permuted once, axes are renamed, and an
ONNX Transpose is a change of the permutation that costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Flattened:
    """The order in which a flattened last axis is held.

    Attributes:
        dims: The axes that the value flattened, e.g. (C, H, W).
        perm: Their order in the tensor, e.g. (1, 2, 0) for H, W, C.
    """

    dims: Shape
    perm: tuple[int, ...]

    def arrange(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return rows (O, K) as a view (O, *axes in the tensor's order)."""
        axes = array.reshape(len(array), *self.dims)
        return axes.transpose(0, *(axis + 1 for axis in self.perm))

    def columns(self) -> NDArray[np.intp]:
        """Return, for each position in the tensor, its position in the value."""
        return np.arange(math.prod(self.dims)).reshape(self.dims).transpose(self.perm).ravel()


@dataclass(frozen=True, slots=True)
class Layout:
    """Axis ``i`` of the tensor is axis ``perm[i]`` of the value.

    Attributes:
        perm: A permutation of the value's axes.
        flattened: Set where the value's last axis was flattened from axes in another order; then
            ``perm`` is the identity.
    """

    perm: tuple[int, ...]
    flattened: Flattened | None = None

    def tensor_shape(self, shape: Sequence[int]) -> Shape:
        """Return the tensor's shape for a value of ``shape``."""
        return tuple(shape[axis] for axis in self.perm)

    def axis(self, value_axis: int) -> int:
        """Return the tensor's axis that holds ``value_axis``, which may be negative."""
        return self.perm.index(value_axis % len(self.perm))

    def arrange(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return a constant as the tensor holds it.

        Args:
            array: Of the value's rank, or of a lower one that broadcasts to it.
        """
        array = array.reshape((1,) * (len(self.perm) - array.ndim) + array.shape)
        if self.flattened and array.shape[-1] > 1:
            array = array[..., self.flattened.columns()]
        return np.ascontiguousarray(array.transpose(self.perm))

    def restore(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return what a tensor holds as the value has it: the inverse of ``arrange``."""
        value = array.transpose(np.argsort(self.perm))
        if self.flattened:
            value = value[..., np.argsort(self.flattened.columns())]
        return np.ascontiguousarray(value)

    def without(self, axes: Sequence[int]) -> Layout:
        """Return the layout of the value whose ``axes``, not negative, are dropped."""
        left = [axis for axis in range(len(self.perm)) if axis not in axes]
        kept = self.flattened if len(self.perm) - 1 in left else None
        return Layout(tuple(left.index(axis) for axis in self.perm if axis in left), kept)

    def shortened(self, axes: Sequence[int]) -> Layout:
        """Return the layout of the value whose ``axes``, not negative, have become 1 long."""
        return Layout(self.perm, None if len(self.perm) - 1 in axes else self.flattened)

    def last(self, axis: int) -> Layout:
        """Return the layout that holds ``axis`` last and the others as they are."""
        return Layout((*(a for a in self.perm if a != axis), axis))

    def transposed(self, perm: Sequence[int]) -> Layout:
        """Return the layout of ``value.transpose(perm)`` in the same tensor."""
        return Layout(tuple(list(perm).index(axis) for axis in self.perm))


NHWC: Final = Layout((0, 2, 3, 1))


def plain(rank: int) -> Layout:
    """Return the layout in which tensor and value are the same."""
    return Layout(tuple(range(rank)))


def preferred(rank: int) -> Layout:
    """Return the layout that TFLite's operators expect for a value of ``rank``."""
    return NHWC if rank == 4 else plain(rank)


def _order(shape: Sequence[int], layout: Layout) -> list[int]:
    """Return the axes longer than 1, in the tensor's order: what decides its memory."""
    return [axis for axis in layout.perm if shape[axis] != 1]


def same_memory(shape: Sequence[int], a: Layout, b: Layout) -> bool:
    """Say whether a value of ``shape`` has the same bytes in both layouts."""
    return a.flattened == b.flattened and _order(shape, a) == _order(shape, b)


def reshaped(before: Sequence[int], after: Sequence[int], layout: Layout) -> Layout | None:
    """Return a layout of the reshaped value that has the same bytes, if there is one.

    ONNX reshapes in the value's order. Where every group of axes that is merged or split lies
    together in the tensor too, the tensor can be reshaped in its own order.

    Args:
        before: The value's shape; all sizes positive.
        after: The reshaped value's shape; as many elements.
        layout: Of the value before.
    """
    if layout.flattened:
        return _unflattened(before, after, layout)
    order = _order(before, layout)
    new_order: list[int] = []
    groups = _groups(before, after)
    while order:
        merged, split = next(group for group in groups if order[0] in group[0])
        if order[: len(merged)] != merged:
            return _flattened(before, after, layout)
        order = order[len(merged) :]
        new_order += split
    return _in_order(after, new_order)


def reshapable(before: Sequence[int], after: Sequence[int], layout: Layout) -> Layout:
    """Return the layout to bring a value to, so that it can be reshaped.

    It is the one that reshapes to the preferred layout, or the plain one: of tokens, whose
    channels lie innermost already, plain keeps them there.
    """
    wish = _before_preferred(before, after)
    straight = plain(len(before))
    if wish is None:
        return straight
    inner = _order(before, layout)[-1:]
    if _order(before, straight)[-1:] == inner != _order(before, wish)[-1:]:
        return straight
    return wish


def _before_preferred(before: Sequence[int], after: Sequence[int]) -> Layout | None:
    """Return the layout in which a value reshapes to the preferred layout, if there is one."""
    order = _order(after, preferred(len(after)))
    old_order: list[int] = []
    groups = _groups(before, after)
    while order:
        merged, split = next(group for group in groups if order[0] in group[1])
        if order[: len(split)] != split:
            return None
        order = order[len(split) :]
        old_order += merged
    return _in_order(before, old_order)


def _in_order(shape: Sequence[int], order: list[int]) -> Layout:
    """Return a layout that has the axes longer than 1 in ``order``, the preferred one if it has."""
    wish = preferred(len(shape))
    if _order(shape, wish) == order:
        return wish
    return Layout(tuple([axis for axis, size in enumerate(shape) if size == 1] + order))


def _groups(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Return the smallest groups of axes (before, after) with equal products, ones left out."""
    old = [axis for axis, size in enumerate(before) if size != 1]
    new = [axis for axis, size in enumerate(after) if size != 1]
    groups = []
    while old:
        merged, split = [old.pop(0)], [new.pop(0)]
        sizes = [before[merged[0]], after[split[0]]]
        while sizes[0] != sizes[1]:
            if sizes[0] < sizes[1]:
                merged.append(old.pop(0))
                sizes[0] *= before[merged[-1]]
            else:
                split.append(new.pop(0))
                sizes[1] *= after[split[-1]]
        groups.append((merged, split))
    return groups


def _flattened(before: Sequence[int], after: Sequence[int], layout: Layout) -> Layout | None:
    """Return the layout of ``before`` flattened to (1, ..., 1, K) in the tensor's order."""
    if any(size != 1 for size in after[:-1]):
        return None
    axes = [axis for axis, size in enumerate(before) if size != 1]
    dims = tuple(before[axis] for axis in axes)
    perm = tuple(axes.index(axis) for axis in _order(before, layout))
    return Layout(tuple(range(len(after))), Flattened(dims, perm))


def _unflattened(before: Sequence[int], after: Sequence[int], layout: Layout) -> Layout | None:
    """Return the layout of a flattened value in another rank, or with its axes back."""
    assert layout.flattened is not None
    axes = [axis for axis, size in enumerate(after) if size != 1]
    if tuple(after[axis] for axis in axes) == layout.flattened.dims:
        return _in_order(after, [axes[axis] for axis in layout.flattened.perm])
    if axes == [len(after) - 1] and before[-1] == after[-1]:
        return Layout(tuple(range(len(after))), layout.flattened)
    return None
