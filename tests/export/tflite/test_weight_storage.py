"""Weights stored as FP16 or int8 under float activations, with every set of kernels."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from ai_edge_litert.schema_py_generated import BuiltinOperator as Op
from onnx import helper, numpy_helper

from edgecls.calibration.placement import place_weights
from edgecls.core.errors import GraphError, UnsupportedOperatorError
from edgecls.core.values import relative_difference
from edgecls.export.passes import with_half_weights
from edgecls.export.tflite import lower

KERNELS = {
    "XNNPACK": OpResolverType.AUTO,
    "optimised": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    "reference": OpResolverType.BUILTIN_REF,
}


def layer(lab, kind):
    """A graph of one layer whose channels have magnitudes of their own; 1024 weights or more."""
    rng = lab.rng

    def weights(*shape, axis=0):
        along = [-1 if i == axis else 1 for i in range(len(shape))]
        spread = np.exp(rng.normal(size=shape[axis])).reshape(along)
        return (rng.normal(size=shape) * spread).astype(np.float32)

    def bias(channels):
        return rng.normal(size=channels).astype(np.float32)

    if kind == "conv":
        return lab.one("Conv", (1, 16, 9, 9), [weights(24, 16, 3, 3), bias(24)], strides=[2, 2])
    if kind == "1x1":
        return lab.one("Conv", (1, 40, 6, 6), [weights(32, 40, 1, 1), bias(32)])
    if kind == "grouped":
        return lab.one("Conv", (1, 16, 8, 8), [weights(32, 4, 3, 3), bias(32)], group=4)
    if kind == "depthwise":
        return lab.one("Conv", (1, 48, 9, 9), [weights(48, 1, 5, 5), bias(48)], group=48)
    if kind == "dense":
        return lab.one("Gemm", (1, 64), [weights(24, 64), bias(24)], transB=1)
    assert kind == "tokens"
    return lab.one("MatMul", (1, 10, 64), [weights(64, 24, axis=1)])


LAYERS = ["conv", "1x1", "grouped", "depthwise", "dense", "tokens"]


def network(lab):
    """A small classifier with all kinds of layers; its first has few weights."""
    rng = lab.rng

    def normal(*shape):
        return rng.normal(0, 0.2, shape).astype(np.float32)

    constants = {
        "w0": normal(16, 3, 3, 3), "b0": normal(16), "w1": normal(64, 16, 3, 3), "b1": normal(64),
        "w2": normal(64, 1, 5, 5), "b2": normal(64), "w3": normal(30, 64 * 8 * 8), "b3": normal(30),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["c0"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c0"], ["r0"]),
        helper.make_node("Conv", ["r0", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], pads=[2, 2, 2, 2], group=64),
        helper.make_node("Flatten", ["c2"], ["f"]),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], transB=1),
    ]
    return lab.graph(nodes, ("batch", 3, 16, 16), constants)


def run(lowered, inputs, kernels):
    interpreter = Interpreter(
        model_content=lowered.data, num_threads=1, experimental_op_resolver_type=KERNELS[kernels]
    )
    interpreter.allocate_tensors()
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    found = []
    for image in inputs:
        batch = image[None].transpose(0, 2, 3, 1) if image.ndim == 3 else image[None]
        interpreter.set_tensor(source["index"], batch)
        interpreter.invoke()
        value = interpreter.get_tensor(result["index"])
        found.append(value.transpose(0, 3, 1, 2) if value.ndim == 4 else value)
    return np.concatenate(found)


def without_transpose(lab, lowered, model, inputs, kernels):
    """An image as output is given back as NCHW by a TRANSPOSE of the file."""
    found = run(lowered, inputs, kernels)
    (expected,) = lab.onnx(model, inputs)
    return found if found.shape == expected.shape else found.transpose(0, 2, 3, 1)


def with_constants(model, change):
    """The graph with every constant of at least one axis changed."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for tensor in made.graph.initializer:
        array = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(change(tensor.name, array), tensor.name))
    return made


def codes_in(lowered):
    """The int8 constants of a file with their scales, largest first."""
    model = schema.ModelT.InitFromPackedBuf(lowered.data)
    found = []
    for tensor in model.subgraphs[0].tensors:
        if tensor.type == schema.TensorType.INT8:
            data = model.buffers[tensor.buffer].data
            assert data is not None, "no activation is int8"
            assert not tensor.quantization.zeroPoint.any()
            found.append((data.view(np.int8).reshape(tensor.shape), tensor.quantization))
    return sorted(found, key=lambda item: -item[0].size)


def versions(lowered):
    model = schema.ModelT.InitFromPackedBuf(lowered.data)
    return {code.builtinCode: code.version for code in model.operatorCodes}


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("kind", [*LAYERS, "network"])
def test_half_weights(lab, kind, kernels):
    model = network(lab) if kind == "network" else layer(lab, kind)
    oracle = with_constants(model, lambda _, array: array.astype(np.float16).astype(np.float32))
    inputs = lab.data(model)

    lowered = lower(with_half_weights(model), weights="float16")
    found = without_transpose(lab, lowered, oracle, inputs, kernels)

    assert relative_difference(lab.onnx(oracle, inputs)[0], found) <= 1e-5
    assert versions(lowered)[Op.DEQUANTIZE] == 3
    assert len(lowered.data) < 0.55 * len(lower(model).data) + 3000
    assert (lowered.quantized, lowered.left_float) == (0, ())


def test_only_what_is_exact_is_stored_as_half(lab):
    model = network(lab)

    assert lower(model, weights="float16").data == lower(model).data


@pytest.mark.parametrize("value", [1e5, np.inf, np.nan])
def test_weights_beyond_half_are_refused(lab, value):
    model = with_constants(
        network(lab), lambda name, array: np.where(name == "w1", np.float32(value), array)
    )

    with pytest.raises(GraphError, match=r"'w1' holds .* beyond FP16"):
        with_half_weights(model)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("kind", LAYERS)
def test_int8_weights(lab, kind, kernels):
    """What the file's own codes and scales mean, computed in float by ONNX Runtime."""
    model = layer(lab, kind)
    weights = numpy_helper.to_array(model.graph.initializer[0])
    lowered = lower(place_weights(model), weights="int8")
    ((stored, quantization),) = codes_in(lowered)
    along = [1] * stored.ndim
    along[quantization.quantizedDimension] = -1
    values = stored * quantization.scale.reshape(along)
    to_graph = {
        "depthwise": lambda v: v.transpose(3, 0, 1, 2),
        "dense": lambda v: v,
        "tokens": lambda v: v.T,
    }
    values = to_graph.get(kind, lambda v: v.transpose(0, 3, 1, 2))(values)
    oracle = with_constants(
        model, lambda _, array: values if array.shape == weights.shape else array
    )
    inputs = lab.data(model)
    found = without_transpose(lab, lowered, oracle, inputs, kernels)
    steps = np.moveaxis(values - weights, 1 if kind == "tokens" else 0, -1) / quantization.scale

    assert relative_difference(lab.onnx(oracle, inputs)[0], found) <= 1e-5
    assert np.abs(steps).max() <= 0.5001
    assert np.abs(stored.astype(int)).max() == 127
    assert versions(lowered)[Op.DEQUANTIZE] == 5
    assert (lowered.quantized, lowered.left_float) == (0, ())


def quantized_input(values, axes):
    """What asymmetric 8 bits keep of values, the range taken over ``axes``; and its step."""
    low = np.minimum(values.min(axis=axes, keepdims=True), 0).astype(np.float64)
    high = np.maximum(values.max(axis=axes, keepdims=True), 0).astype(np.float64)
    scale = (high - low) / 255
    zero_point = np.rint(-128 - low / scale)
    codes = np.clip(np.rint(values / scale) + zero_point, -128, 127)
    return (codes - zero_point) * scale, scale


def range_axes(kind, kernels):
    """Over what one range is taken: a row of a matrix product, or the whole image.

    XNNPACK computes a 1x1 convolution as a matrix product whose rows are pixels.
    """
    if kind in ("dense", "tokens"):
        return (-1,)
    return (1,) if kind == "1x1" and kernels == "XNNPACK" else (1, 2, 3)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("kind", [kind for kind in LAYERS if kind != "depthwise"])
def test_hybrid_kernels(lab, kind, kernels):
    """Against a model of their arithmetic.

    A code may differ where a value lies between two: one step, times the largest weight, of the
    few inputs for which this can be; the rest is exact but for float32's rounding.
    """
    model = layer(lab, kind)
    inputs = lab.data(model) + np.float32(0.3)
    lowered = lower(place_weights(model, dynamic="layers"), weights="int8")
    ((stored, quantization),) = codes_in(lowered)
    kept, scale = quantized_input(inputs, range_axes(kind, kernels))
    weights = place_weights(model)
    (expected,) = lab.onnx(weights, kept.astype(np.float32))
    found = without_transpose(lab, lowered, weights, inputs, kernels)
    step = scale.max() * np.abs(stored * 1.0).max() * quantization.scale.max()

    assert np.abs(expected - found).max() <= step
    assert np.mean(np.abs(expected - found) > 1e-5 * np.abs(expected).max()) <= 0.02
    assert (lowered.quantized, lowered.left_float) == (1, ())


def test_a_network_that_is_quantized_as_it_runs(lab):
    model = network(lab)
    placed = place_weights(model, dynamic="layers")
    lowered = lower(placed, weights="int8")
    inputs = lab.data(model, 20)
    (exact,), (simulated,) = lab.onnx(model, inputs), lab.onnx(placed, inputs)
    found = run(lowered, inputs, "XNNPACK")
    noise = relative_difference(exact, simulated)

    assert 1e-3 < noise < 0.05
    assert relative_difference(simulated, found) <= 2 * noise
    assert np.mean(found.argmax(1) == exact.argmax(1)) >= 0.9
    assert lowered.quantized == 2
    assert lowered.left_float == ("Conv_0", "Conv_4")
    found_versions = versions(lowered)
    assert (found_versions[Op.CONV_2D], found_versions[Op.FULLY_CONNECTED]) == (5, 12)
    assert found_versions[Op.DEPTHWISE_CONV_2D] == 1


def dynamic(source, name):
    parameters = [f"{name}_{end}" for end in "qsz"]
    return [
        helper.make_node("DynamicQuantizeLinear", [source], parameters),
        helper.make_node("DequantizeLinear", parameters, [name]),
    ]


def test_quantizing_what_no_kernel_quantizes_is_refused(lab):
    nodes = [*dynamic("x", "d"), helper.make_node("Add", ["d", "d"], ["y"])]

    with pytest.raises(UnsupportedOperatorError, match="only what convolutions and matrix"):
        lower(lab.graph(nodes, (1, 8)))


def test_float_weights_behind_a_dynamic_input_are_refused(lab):
    nodes = [*dynamic("x", "d"), helper.make_node("MatMul", ["d", "w"], ["y"])]
    weights = {"w": np.ones((8, 4), np.float32)}

    with pytest.raises(UnsupportedOperatorError, match="its weights are float"):
        lower(lab.graph(nodes, (1, 8), weights))


def test_large_weights_are_kept_once_and_in_order(lab):
    """1.3 MB that two layers share, behind a flattened image, whose order they follow."""
    rng = lab.rng
    constants = {name: rng.normal(0, 0.1, (80, 64 * 8 * 8)).astype(np.float32) for name in "vw"}
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Flatten", ["x"], ["a"]),
        helper.make_node("Flatten", ["r"], ["b"]),
        helper.make_node("Gemm", ["a", "w"], ["p"], transB=1),
        helper.make_node("Gemm", ["b", "w"], ["q"], transB=1),
        helper.make_node("Gemm", ["b", "v"], ["s"], transB=1),
        helper.make_node("Sub", ["p", "q"], ["d"]),
        helper.make_node("Mul", ["d", "s"], ["y"]),
    ]
    model = lab.graph(nodes, (1, 64, 8, 8), constants)
    inputs = lab.data(model)
    lowered = lower(model)

    assert relative_difference(lab.onnx(model, inputs)[0], lab.tflite(lowered, inputs)) <= 1e-5
    assert len(lowered.data) < 2 * constants["w"].nbytes + 10_000
