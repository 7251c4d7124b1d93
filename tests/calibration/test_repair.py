"""Repairs, each against what it promises: the same function, no mean error, no larger error."""

from __future__ import annotations

import itertools
from typing import get_args

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from edgecls.calibration.collect import collect_ranges
from edgecls.calibration.placement import place_qdq
from edgecls.calibration.repair import (
    Moments,
    collect_moments,
    corrected_bias,
    equalized,
    operands,
    rounded,
)
from edgecls.calibration.scheme import quantize_weights, weight_scales
from edgecls.core.ranges import RangeTable
from edgecls.core.values import Granularity
from edgecls.targets import TARGETS

GRANULARITIES: tuple[Granularity, ...] = get_args(Granularity)

# A pair into a depthwise convolution, one into a dense one, and two that are none: a branch, SiLU.
NET = """
<ir_version: 10, opset_import: ["" : 20]>
net (float[1,3,9,9] input) => (float[1,5] logits)
{
    c1 = Conv <kernel_shape=[3,3], pads=[1,1,1,1]> (input, w1, b1)
    r1 = Relu (c1)
    c2 = Conv <kernel_shape=[3,3], pads=[0,1,1,0], strides=[2,2], group=6> (r1, w2, b2)
    r2 = Relu (c2)
    c3 = Conv <kernel_shape=[2,2], dilations=[2,1]> (r2, w3, b3)
    r3 = Relu (c3)
    c4 = Conv <kernel_shape=[1,1], group=2> (r3, w4, b4)
    sum = Add (c4, r3)
    c5 = Conv <kernel_shape=[1,1]> (sum, w5)
    s5 = Sigmoid (c5)
    m5 = Mul (c5, s5)
    flat = Flatten (m5)
    dense = MatMul (flat, w6)
    r6 = Relu (dense)
    logits = Gemm <transB=1> (r6, w7, b7)
}
"""
SHAPES = {
    "w1": (6, 3, 3, 3), "b1": (6,), "w2": (6, 1, 3, 3), "b2": (6,), "w3": (4, 6, 2, 2), "b3": (4,),
    "w4": (4, 2, 1, 1), "b4": (4,), "w5": (3, 4, 1, 1), "w6": (18, 7), "w7": (5, 7), "b7": (5,),
}  # fmt: skip
WEIGHTED = {"c1", "c2", "c3", "c4", "c5", "dense", "logits"}


def images(count: int = 6) -> list[NDArray[np.float32]]:
    generator = np.random.default_rng(7)
    return [generator.normal(size=(1, 3, 9, 9)).astype(np.float32) for _ in range(count)]


@pytest.fixture(scope="module")
def net() -> onnx.ModelProto:
    generator = np.random.default_rng(0)
    model = onnx.parser.parse_model(NET)
    for name, shape in SHAPES.items():
        array = generator.normal(0, 0.4, shape).astype(np.float32)
        if name == "w1":  # channels of very different size
            array *= 10.0 ** np.arange(-2, 4).reshape(-1, 1, 1, 1)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


@pytest.fixture(scope="module")
def table(net: onnx.ModelProto) -> RangeTable:
    return table_of(net)


def table_of(model: onnx.ModelProto) -> RangeTable:
    items = [(f"{place:02x}", image) for place, image in enumerate(images())]
    return collect_ranges(model, items, method="minmax", seed=0)


def run(model: onnx.ModelProto, *names: str) -> list[NDArray[np.float32]]:
    """Return values of all images, each stacked, whatever stands behind them."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    known = {value.name: value for value in copy.graph.value_info}
    copy.graph.output.extend(known[name] for name in names if name != "logits")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(copy.SerializeToString(), options)
    found = [session.run(list(names), {"input": image}) for image in images()]
    return [np.concatenate(values) for values in zip(*found, strict=True)]


def arrays(model: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
    return {item.name: onnx.numpy_helper.to_array(item) for item in model.graph.initializer}


def with_arrays(model: onnx.ModelProto, **new: NDArray[np.float32]) -> onnx.ModelProto:
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for item in made.graph.initializer:
        if item.name in new:
            item.CopyFrom(onnx.numpy_helper.from_array(new[item.name], item.name))
    return made


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_equalization_leaves_the_function_as_it_was(
    net: onnx.ModelProto, granularity: Granularity
) -> None:
    made, names = equalized(net, images(), granularity)

    assert names == ("c1", "c2")
    (before,), (after,) = run(net, "logits"), run(made, "logits")
    assert np.abs(before - after).max() <= 1e-5 * np.abs(before).max()
    changed = {name for name, array in arrays(net).items() if (arrays(made)[name] != array).any()}
    assert changed == {"w1", "b1", "w2", "b2", "w3"}


def test_equalized_channels_are_alike_before_a_depthwise_convolution(net: onnx.ModelProto) -> None:
    made, _ = equalized(net, images())

    def spread(model: onnx.ModelProto) -> float:
        (values,) = run(model, "r1")
        largest = values.max((0, 2, 3))
        largest = largest[largest > 0]  # a dead channel stays one
        return float(largest.max() / largest.min())

    assert spread(net) > 1e3
    assert spread(made) < 1.001


def test_channels_balanced_for_one_scale_weigh_the_same_on_both_sides(
    net: onnx.ModelProto,
) -> None:
    """The last pair is exactly so: each channel's largest weight out of c2 and into c3."""
    made, _ = equalized(net, images(), "per_tensor")

    out, into = np.abs(arrays(made)["w2"]).max((1, 2, 3)), np.abs(arrays(made)["w3"]).max((0, 2, 3))
    ratio = out / into
    assert ratio.max() / ratio.min() < 1.001
    before = np.abs(arrays(net)["w1"]).max((1, 2, 3))
    after = np.abs(arrays(made)["w1"]).max((1, 2, 3))
    assert after.max() / after.min() < before.max() / before.min() / 100


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_equalization_lowers_the_noise_of_quantization(
    net: onnx.ModelProto, granularity: Granularity
) -> None:
    made, _ = equalized(net, images(), granularity)
    scheme = msgspec.structs.replace(TARGETS["jetson"].scheme, weights=granularity)
    (expected,) = run(net, "logits")

    def noise(model: onnx.ModelProto) -> float:
        quantized = place_qdq(model, table_of(model), scheme).model
        (found,) = run(quantized, "logits")
        return float(((found - expected) ** 2).sum())

    # Other layers' noise stays; with one scale for all weights there is more of it.
    assert noise(made) < noise(net) / (2 if granularity == "per_channel" else 1.2)


def test_moments_are_those_of_the_convolutions_own_sums(
    net: onnx.ModelProto, table: RangeTable
) -> None:
    """The mean output of a layer is its weights times the mean patch, plus its bias: exactly."""
    chosen = operands(net, table)
    assert set(chosen) == WEIGHTED
    moments = collect_moments(net, chosen, images())
    known = arrays(net)

    for name, operand in chosen.items():
        (values,) = run(net, name)
        bias = known[operand.bias] if operand.bias else np.zeros(1)
        axes = tuple(axis for axis in range(values.ndim) if axis != 1)
        outputs = values - bias.reshape((1, -1, *[1] * (values.ndim - 2)))
        mean = np.einsum("gok,gk->go", operand.matrix, moments[name].mean).reshape(-1)
        square = np.einsum(
            "gok,gkl,gol->go", operand.matrix, moments[name].second, operand.matrix
        ).reshape(-1)
        magnitude = np.abs(outputs).max()
        assert np.allclose(mean, outputs.mean(axes), atol=1e-5 * magnitude)
        assert np.allclose(square, (outputs**2).mean(axes), rtol=1e-3)


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_scales_are_those_of_the_placement(
    net: onnx.ModelProto, table: RangeTable, granularity: Granularity
) -> None:
    scheme = msgspec.structs.replace(TARGETS["jetson"].scheme, weights=granularity)
    placed = arrays(place_qdq(net, table, scheme).model)

    for operand in operands(net, table, granularity).values():
        assert np.array_equal(placed[f"{operand.weights}_scale"], operand.scales.reshape(-1))


@pytest.mark.parametrize("with_rounding", [False, True])
def test_bias_correction_leaves_no_mean_error(
    net: onnx.ModelProto, table: RangeTable, with_rounding: bool
) -> None:
    """A layer with quantized weights and the corrected bias, run on the images, channel by channel.

    Only its weights are codes: what it reads is the float network's.
    """
    known = arrays(net)
    chosen = operands(net, table)
    moments = collect_moments(net, chosen, images())
    for name in ("c1", "c2", "c3", "c4", "logits"):
        operand = chosen[name]
        matrix = rounded(operand, moments[name]) if with_rounding else operand.matrix
        assert operand.bias is not None
        bias = corrected_bias(known[operand.bias], operand, matrix, moments[name])
        computed = operand.codes(matrix) * operand.scales[..., None]
        weights = operand.constant(computed, known[operand.weights])
        changes = {operand.weights: weights}
        (expected,) = run(net, name)
        (plain,) = run(with_arrays(net, **changes), name)
        (mended,) = run(with_arrays(net, **changes, **{operand.bias: bias}), name)
        axes = tuple(axis for axis in range(expected.ndim) if axis != 1)
        magnitude = np.abs(expected).max(axes)
        before = np.abs((plain - expected).mean(axes)) / magnitude
        after = np.abs((mended - expected).mean(axes)) / magnitude
        assert before.max() > 1e-5
        assert after.max() < 2e-6


def test_rounding_finds_what_trying_all_finds() -> None:
    """Against all 2**8 choices of up or down, on correlated inputs; never worse than nearest."""
    generator = np.random.default_rng(3)
    mixing = generator.normal(size=(9, 9))
    patches = generator.normal(size=(500, 9)) @ mixing + 1.0
    weights = generator.normal(size=(12, 9)).astype(np.float32)
    scales = weight_scales(weights, axis=0).astype(np.float64)[:, None] * 16
    weights[:, 0] = 127 * scales[:, 0]  # the scale follows from it
    moments = Moments(mean=patches.mean(0)[None], second=(patches.T @ patches / 500)[None])
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> g (float[1,9] input) => (float[1,12] logits)'
        "{ logits = Gemm <transB=1> (input, w) }"
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    none = RangeTable(ranges={}, model_sha256="", data_sha256="", method="minmax", images=1, seed=0)
    operand = operands(model, none)["logits"]
    found = rounded(operand, moments)[0]

    def cost(row: NDArray[np.float64], index: int) -> float:
        return float((((row - weights[index]) @ patches.T) ** 2).mean())

    steps = operand.scales[0][:, None]
    exact = []
    for index, row in enumerate(weights.astype(np.float64)):
        floor = np.floor(row / steps[index])
        best = min(
            cost((floor + np.array([0, *up])) * steps[index], index)
            for up in itertools.product((0, 1), repeat=8)
        )
        nearest = cost(operand.codes()[0][index] * steps[index], index)
        mine = cost(found[index], index)
        assert best - 1e-9 <= mine <= nearest * (1 + 2e-3)
        exact.append((mine - best) / max(nearest - best, 1e-12))
        # Each weight is one of its two neighbours on the grid.
        assert np.abs(found[index] / steps[index] - row / steps[index]).max() < 1 + 1e-6
    assert np.median(exact) < 0.2


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_rounded_weights_keep_their_codes(
    net: onnx.ModelProto, table: RangeTable, granularity: Granularity
) -> None:
    known = arrays(net)
    chosen = operands(net, table, granularity)
    moments = collect_moments(net, chosen, images())
    flipped = 0
    for name, operand in chosen.items():
        matrix = rounded(operand, moments[name])
        weights = operand.constant(matrix, known[operand.weights])
        made = with_arrays(net, **{operand.weights: weights})
        again = operands(made, table, granularity)[name]

        assert np.array_equal(again.scales, operand.scales)
        assert np.array_equal(again.codes(), operand.codes(matrix))
        flipped += int((operand.codes(matrix) != operand.codes()).sum())
        axis = 0 if operand.conv is not None or operand.transposed else 1
        codes = quantize_weights(weights, again.scales.reshape(-1).astype(np.float32), axis=axis)
        assert np.array_equal(again.rows(codes.astype(np.float32)), again.codes())
    assert flipped > 20
