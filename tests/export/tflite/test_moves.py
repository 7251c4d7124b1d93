"""Chains of reshapes and transposes: whatever is made of them, numpy must agree."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgecls.export.tflite.moves import Move


@st.composite
def moves(draw, size):
    """A move of an array of ``size`` numbers."""
    dims, left = [], size
    while left > 1 or draw(st.booleans()):
        factor = draw(st.sampled_from([d for d in range(1, left + 1) if left % d == 0]))
        dims.append(factor)
        left //= factor
        if len(dims) == 4:
            dims.append(left)
            break
    return Move(tuple(dims), tuple(draw(st.permutations(range(len(dims))))))


def moved(array, move):
    return array.reshape(move.dims or array.size).transpose(move.order or (0,)).ravel()


sizes = st.sampled_from([1, 6, 24, 36, 64, 120])


@given(sizes.flatmap(lambda size: st.tuples(moves(size), moves(size))))
def test_two_as_one(both):
    first, second = both
    array = np.arange(math.prod(first.dims))

    one = first.then(second)

    if one is not None:
        assert (moved(array, one) == moved(moved(array, first), second)).all()


@given(sizes.flatmap(moves))
def test_simplified_is_the_same(move):
    array = np.arange(math.prod(move.dims))

    simple = move.simplified()

    assert (moved(array, simple) == moved(array, move)).all()
    assert len(simple.dims) <= len(move.dims)
    # No further: what stays together has become one axis, in every order.
    assert all(b != a + 1 for a, b in zip(simple.order, simple.order[1:], strict=False))


@given(sizes.flatmap(moves))
def test_there_and_back_is_nothing(move):
    back = Move(move.result, tuple(int(axis) for axis in np.argsort(move.order)))

    assert move.then(back) == Move((), ())


def test_unfolding_an_image_into_patches():
    """MobileViT: NHWC to NCHW, rows and columns of patches apart, pixels of a patch in front."""
    first = Move((12, 12, 64), (2, 0, 1))
    second = Move((64 * 6, 2, 6, 2), (0, 2, 1, 3))
    third = Move((64, 36, 4), (2, 1, 0))

    one = first.then(second)

    assert one is not None
    assert one.then(third) == Move((6, 2, 6, 2, 64), (1, 3, 0, 2, 4))


def test_axes_that_do_not_fit_are_left():
    assert Move((6, 4), (1, 0)).then(Move((3, 8), (1, 0))) is None
