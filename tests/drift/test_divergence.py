"""SQNR and KL divergence against their definitions, written out, and scipy's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy import special, stats

from edgecls.core.errors import DataError
from edgecls.core.values import Logits
from edgecls.drift.divergence import divergence, sqnr_db

finite = st.floats(-50, 50, width=32)
pairs = npst.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=12).flatmap(
    lambda shape: st.tuples(*[npst.arrays(np.float32, shape, elements=finite)] * 2)
)


@given(pairs)
def test_every_image_as_defined(logits: tuple[Logits, Logits]) -> None:
    reference, candidate = logits
    found = divergence(reference, candidate)

    for index, (expected, other) in enumerate(zip(reference, candidate, strict=True)):
        signal = math.fsum(float(x) ** 2 for x in expected)
        noise = math.fsum((float(x) - float(y)) ** 2 for x, y in zip(expected, other, strict=True))
        wide = expected.astype(np.float64), other.astype(np.float64)
        kl = stats.entropy(*map(special.softmax, wide))
        assert found.signal[index] == pytest.approx(signal, rel=1e-12)
        assert found.noise[index] == pytest.approx(noise, rel=1e-12)
        assert found.kl[index] == pytest.approx(float(kl), rel=1e-9, abs=1e-12)


def test_known_values() -> None:
    reference = np.array([[10.0, 0.0], [0.0, 0.0]], np.float32)
    candidate = np.array([[9.0, 0.0], [math.log(3.0), 0.0]], np.float32)
    found = divergence(reference, candidate)

    assert float(sqnr_db(found.signal, found.noise)[0]) == pytest.approx(20.0)
    # Even odds against three to one.
    assert found.kl[1] == pytest.approx(0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25))


def test_a_uniform_quantizer_has_its_textbook_sqnr() -> None:
    """6.02 dB for each bit: a full-scale uniform signal in steps of 2 / 2**8."""
    signal = np.random.default_rng(0).uniform(-1, 1, (200, 500)).astype(np.float32)
    step = 2.0 / 2**8
    rounded = ((np.floor(signal / step) + 0.5) * step).astype(np.float32)
    found = divergence(signal, rounded)

    total = sqnr_db(found.signal.sum(keepdims=True), found.noise.sum(keepdims=True))
    assert float(total[0]) == pytest.approx(20 * math.log10(2**8), abs=0.05)


def test_no_noise_is_infinite_and_other_shapes_are_refused() -> None:
    logits = np.ones((3, 4), np.float32)
    found = divergence(logits, logits)

    assert np.isinf(sqnr_db(found.signal, found.noise)).all()
    assert not found.kl.any()
    with pytest.raises(DataError, match="same images and classes"):
        divergence(logits, logits[:, :3])


def test_large_logits_do_not_overflow() -> None:
    reference = np.array([[3e4, 0.0, -3e4]], np.float32)
    found = divergence(reference, reference[:, ::-1])

    assert found.kl[0] == pytest.approx(6e4)
