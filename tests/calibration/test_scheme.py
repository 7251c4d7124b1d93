from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecls.calibration.scheme import (
    SMALLEST_SCALE,
    QuantParams,
    activation_params,
    half_scale,
    quantize_weights,
    range_of,
    weight_scales,
)
from edgecls.core.errors import CalibrationError
from edgecls.core.preprocess import PRESETS
from edgecls.core.ranges import Range
from edgecls.core.values import QuantScheme

SYMMETRIC = QuantScheme(activations="symmetric", placement="fused")
ASYMMETRIC = QuantScheme(activations="asymmetric", placement="full")
WIDE = QuantScheme(activations="symmetric", placement="full", activation_bits=16)

numbers = st.floats(-1e4, 1e4, allow_nan=False)
ranges = st.tuples(numbers, numbers).map(lambda pair: Range(min(pair), max(pair)))


@given(scale=st.floats(0, 65504))
def test_half_scale_is_the_next_fp16_number(scale: float) -> None:
    found = float(half_scale(scale))

    assert np.float16(found) == found
    assert found >= scale
    below = float(np.nextafter(np.float16(found), np.float16(-1)))
    assert below < scale or found == SMALLEST_SCALE


def test_half_scale_refuses_more_than_fp16_has() -> None:
    with pytest.raises(CalibrationError, match="65504"):
        half_scale(70000.0)


@given(interval=ranges)
def test_symmetric_has_zero_point_0_and_covers_the_range(interval: Range) -> None:
    params = activation_params(interval, SYMMETRIC)

    assert params.zero_point == 0
    assert params.scale * 127 >= max(abs(interval.lo), abs(interval.hi))


@given(interval=ranges)
def test_16_bits_cover_the_range_with_32767_codes_on_each_side(interval: Range) -> None:
    params = activation_params(interval, WIDE)
    largest = max(abs(interval.lo), abs(interval.hi))

    assert params.zero_point == 0
    assert np.float32(params.scale) == params.scale
    assert params.scale == SMALLEST_SCALE or round(largest / params.scale) == 32767
    assert largest / params.scale < 32767.5


def test_16_bits_are_symmetric() -> None:
    with pytest.raises(ValueError, match="symmetric"):
        QuantScheme(activations="asymmetric", placement="full", activation_bits=16)


@given(interval=ranges)
def test_asymmetric_covers_the_range_and_zero(interval: Range) -> None:
    params = activation_params(interval, ASYMMETRIC)
    lowest = (-128 - params.zero_point) * params.scale
    highest = (127 - params.zero_point) * params.scale

    assert -128 <= params.zero_point <= 127
    assert lowest <= min(interval.lo, 0) * (1 - 1e-6)
    assert highest >= max(interval.hi, 0) * (1 - 1e-6)
    span = max(interval.hi, 0) - min(interval.lo, 0)
    assert params.scale <= max(span / 253.5, SMALLEST_SCALE), "at most 1.5 of 255 steps are spent"


def test_a_relu_range_uses_every_code() -> None:
    params = activation_params(Range(0.0, 6.0), ASYMMETRIC)

    assert (params.scale, params.zero_point) == (float(np.float32(6 / 255)), -128)


def test_pixels_of_the_inception_preset_are_their_codes() -> None:
    table = PRESETS["inception"].table()[0]
    params = activation_params(Range(float(table.min()), float(table.max())), ASYMMETRIC)

    codes = np.rint(table.astype(np.float64) / params.scale) + params.zero_point

    # 0 must be a code and is no pixel's value here (they are odd multiples of half a step).
    assert len(set(codes.tolist())) >= 255
    assert codes.min() >= -128
    assert codes.max() <= 127


def test_weight_scales_map_the_largest_to_127() -> None:
    weights = np.array([[1.27, -0.5], [-2.54, 0.1]], np.float32)

    scales = weight_scales(weights, axis=0)
    codes = quantize_weights(weights, scales, axis=0)

    assert np.allclose(scales, [0.01, 0.02], rtol=1e-3)
    assert codes[0, 0] == 127
    assert codes[1, 0] == -127


@given(
    seed=st.integers(0, 1000),
    axis=st.integers(0, 3),
    magnitude=st.floats(1e-12, 1e3),
)
def test_codes_never_reach_minus_128(seed: int, axis: int, magnitude: float) -> None:
    weights = np.random.default_rng(seed).normal(size=(3, 4, 2, 5)).astype(np.float32) * magnitude
    weights = weights.astype(np.float32)

    scales = weight_scales(weights, axis=axis)
    codes = quantize_weights(weights, scales, axis=axis)

    assert codes.min() >= -127
    shape = [1] * 4
    shape[axis] = -1
    restored = codes.astype(np.float64) * scales.astype(np.float64).reshape(shape)
    assert np.all(np.abs(restored - weights) <= scales.max() * 0.501)


@given(bias=st.floats(-1e3, 1e3), hi=st.floats(1e-3, 1e3))
def test_a_dead_channels_bias_fits_int32_and_is_kept(bias: float, hi: float) -> None:
    weights = np.zeros((2, 3, 1, 1), np.float32)
    weights[0] = 1.0
    biases = np.array([0.0, bias], np.float32)

    scales = weight_scales(weights, axis=0, bias=biases, input_range=Range(0.0, hi))

    for scheme in (SYMMETRIC, ASYMMETRIC):
        step = activation_params(Range(0.0, hi), scheme).scale * float(scales[1])
        code = round(float(biases[1]) / step)
        assert abs(code) < 2**31
        # Half a step of the sum of products, far below what int8 outputs can tell.
        assert abs(code * step - float(biases[1])) <= max(abs(bias), hi) * 1e-5


def test_one_scale_for_all_channels_is_the_largest_of_theirs() -> None:
    weights = np.array([[1.27, -0.5], [-2.54, 0.1]], np.float32)

    each = weight_scales(weights, axis=0)
    shared = weight_scales(weights, axis=0, granularity="per_tensor")

    assert np.array_equal(shared, [each[1], each[1]])


def test_weights_with_a_nan_are_refused() -> None:
    with pytest.raises(CalibrationError, match="NaN"):
        weight_scales(np.array([[np.nan]], np.float32), axis=0)


@given(interval=ranges, factor=st.floats(0.01, 100))
@pytest.mark.parametrize("scheme", [SYMMETRIC, ASYMMETRIC], ids=["symmetric", "asymmetric"])
def test_a_range_gives_back_its_parameters(
    scheme: QuantScheme, interval: Range, factor: float
) -> None:
    """Any scale that training may choose, with the zero point that the first range gave."""
    first = activation_params(interval, scheme)
    wanted = np.float32(max(first.scale * factor, SMALLEST_SCALE))
    scale = float(half_scale(wanted) if scheme is SYMMETRIC else wanted)

    found = range_of(QuantParams(scale, first.zero_point), scheme, interval)

    assert activation_params(found, scheme) == QuantParams(scale, first.zero_point)
    if scheme is SYMMETRIC and interval.lo >= 0:
        assert found.lo >= 0
