"""Codes in torch: what they say, and what their gradients are, against the papers' formulas."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from edgecls.calibration.scheme import half_scale
from edgecls.calibration.scheme import quantize_weights as codes_of
from edgecls.compress.fake_quantize import fake_quantize, learned_scales, quantize_weights


def onnx_runtime(x: np.ndarray, scale: float, zero_point: int) -> np.ndarray:
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 20]> g (float[n] x) => (float[n] y) {'
        "q = QuantizeLinear (x, s, z)  y = DequantizeLinear (q, s, z) }"
    )
    for name, value in (("s", np.float32(scale)), ("z", np.int8(zero_point))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize(("scale", "zero_point"), [(0.03125, 0), (0.0173, -128), (0.4, 57)])
def test_codes_are_onnx_runtimes(scale: float, zero_point: int) -> None:
    x = np.random.default_rng(0).normal(0, 4, 5000).astype(np.float32)
    x[:4] = scale * np.array([0.5, 1.5, 2.5, -0.5], np.float32)  # ties go to even codes

    found = fake_quantize(torch.from_numpy(x), torch.tensor(scale), zero_point)

    np.testing.assert_array_equal(found.numpy(), onnx_runtime(x, np.float32(scale), zero_point))


def test_gradients_are_lsqs() -> None:
    """Esser et al. 2020, equations 3 and 5: inside the rounding error, outside the last code."""
    x = torch.tensor([-9.0, -1.3, 0.26, 0.9, 40.0], requires_grad=True)
    scale = torch.tensor(0.25, requires_grad=True)

    fake_quantize(x, scale, -20).sum().backward()

    steps = x.detach() / 0.25
    inside = steps.round() - steps
    expected = torch.where(steps < -108, -108.0, torch.where(steps > 147, 147.0, inside))
    assert scale.grad is not None
    assert x.grad is not None
    assert float(scale.grad) == pytest.approx(float(expected.sum()), rel=1e-5)
    assert x.grad.tolist() == [1.0, 1.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize("half", [True, False])
def test_scales_are_positive_and_scale_their_gradient(half: bool) -> None:
    logarithms = torch.tensor([-200.0, -3.7, 0.3, 200.0], requires_grad=True)
    factors = torch.tensor([1.0, 0.5, 0.1, 1.0])

    scales = learned_scales(logarithms, factors, half=half)
    scales.sum().backward()

    assert (scales > 0).all()
    assert scales.isfinite().all()
    if half:
        np.testing.assert_array_equal(scales.detach(), half_scale(scales.detach().double().numpy()))
    assert logarithms.grad is not None
    # d exp(t) / dt = exp(t), times LSQ's factor, and bounded.
    expected = (scales.detach() * factors).clamp(max=0.1)
    assert float(expected[1]) < 0.1 == pytest.approx(float(expected[2]))
    torch.testing.assert_close(logarithms.grad, expected)


@pytest.mark.parametrize("axis", [0, 1])
def test_weights_have_the_codes_that_ship(axis: int) -> None:
    weights = np.random.default_rng(1).normal(size=(64, 32)).astype(np.float32)
    scales = half_scale(np.abs(weights).max(1 - axis).astype(np.float64) / 127)
    weights[3, 4] = 2.5 * scales[4 if axis else 3]
    learned = torch.from_numpy(weights).requires_grad_()

    found = quantize_weights(learned, torch.from_numpy(scales), axis)
    found.mul(3.0).sum().backward()

    along = scales[None] if axis else scales[:, None]
    expected = codes_of(weights, scales, axis=axis).astype(np.float32) * along
    np.testing.assert_array_equal(found.detach().numpy(), expected)
    assert learned.grad is not None
    assert bool((learned.grad == 3.0).all())
