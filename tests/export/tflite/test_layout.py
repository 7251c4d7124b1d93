"""Layouts as pure functions: whatever they claim, numpy must agree."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from edgecls.export.tflite.layout import (
    NHWC,
    Layout,
    plain,
    preferred,
    reshapable,
    reshaped,
    same_memory,
)

shapes = st.lists(st.integers(1, 4), min_size=1, max_size=5).map(tuple)


@st.composite
def arranged(draw):
    """A value, a layout, and the value's bytes in it."""
    shape = draw(shapes)
    layout = Layout(tuple(draw(st.permutations(range(len(shape))))))
    value = np.arange(math.prod(shape)).reshape(shape)
    return value, layout


@st.composite
def reshapes(draw):
    """A value, a layout of it, and another shape with as many elements."""
    value, layout = draw(arranged())
    left, after = value.size, []
    while left > 1 or draw(st.booleans()):
        factor = draw(st.sampled_from([d for d in range(1, left + 1) if left % d == 0]))
        after.append(factor)
        left //= factor
        assume(len(after) < 6)
    return value, layout, (*after, left) if left > 1 or not after else tuple(after)


def back(array, layout, shape):
    """The value that a tensor holds, by the definition of a layout."""
    if layout.flattened:
        value = np.empty(math.prod(shape), array.dtype)
        value[layout.flattened.columns()] = array.ravel()
        return value.reshape(shape)
    value = np.empty(shape, array.dtype)
    value.transpose(layout.perm)[...] = array.reshape(layout.tensor_shape(shape))
    return value


def test_nhwc():
    value = np.arange(120).reshape(1, 2, 3, 20)

    assert NHWC.tensor_shape((1, 2, 3, 20)) == (1, 3, 20, 2)
    assert [NHWC.axis(axis) for axis in (0, 1, 2, 3, -1)] == [0, 3, 1, 2, 2]
    assert (NHWC.arrange(value) == value.transpose(0, 2, 3, 1)).all()
    assert preferred(4) == NHWC
    assert preferred(3) == plain(3)


@given(arranged())
def test_arrange_holds_the_value(case):
    value, layout = case

    assert (back(layout.arrange(value), layout, value.shape) == value).all()


@given(arranged(), st.data())
def test_transposed_is_the_same_tensor(case, data):
    value, layout = case
    perm = data.draw(st.permutations(range(value.ndim)))
    tensor = layout.arrange(value)

    other = layout.transposed(perm)

    moved = value.transpose(perm)
    assert (back(tensor, other, moved.shape) == moved).all()


@given(arranged(), st.data())
def test_same_memory_means_the_same_bytes(case, data):
    value, layout = case
    other = Layout(tuple(data.draw(st.permutations(range(value.ndim)))))

    same = (layout.arrange(value).ravel() == other.arrange(value).ravel()).all()

    assert same_memory(value.shape, layout, other) == same


@given(reshapes())
def test_reshaped_keeps_the_bytes(case):
    value, layout, after = case
    result = reshaped(value.shape, after, layout)
    assume(result is not None)

    tensor = layout.arrange(value)
    if result.flattened:
        assert (tensor.ravel() == value.ravel()[result.flattened.columns()]).all()
    assert (back(tensor, result, after) == value.reshape(after)).all()


@given(reshapes())
def test_every_reshape_has_a_layout(case):
    value, held, after = case
    layout = reshapable(value.shape, after, held)

    result = reshaped(value.shape, after, layout)

    assert result is not None
    assert (back(layout.arrange(value), result, after) == value.reshape(after)).all()


@given(st.lists(st.integers(2, 4), min_size=2, max_size=3).map(tuple), st.data())
def test_flattened_goes_back_to_its_axes(dims, data):
    perm = data.draw(st.permutations(range(len(dims))))
    value = np.arange(math.prod(dims)).reshape(1, *dims)
    layout = Layout((0, *(axis + 1 for axis in perm)))
    tensor = layout.arrange(value)

    flat = reshaped(value.shape, (1, value.size), layout)
    assert flat is not None
    again = reshaped((1, value.size), value.shape, flat)

    assert again is not None
    assert (back(tensor, again, value.shape) == value).all()
    assert (back(tensor, flat, (1, value.size)) == value.reshape(1, -1)).all()
