from __future__ import annotations

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from edgecls.calibration.collect import collect_ranges, observed_names
from edgecls.calibration.placement import QuantizedGraph, place_qdq
from edgecls.core.errors import CalibrationError
from edgecls.core.ranges import RangeTable
from edgecls.core.values import QuantScheme
from edgecls.targets import TARGETS

FUSED = QuantScheme(activations="symmetric", placement="fused")
FULL = QuantScheme(activations="asymmetric", placement="full")
WIDE = QuantScheme(activations="symmetric", placement="full", activation_bits=16)

RESIDUAL = """
<ir_version: 10, opset_import: ["" : 20]>
residual (float[batch,3,8,8] input) => (float[batch,5] logits)
{
    c1 = Conv <kernel_shape=[3,3], pads=[1,1,1,1]> (input, w1, b1)
    r1 = Relu (c1)
    c2 = Conv <kernel_shape=[3,3], pads=[1,1,1,1]> (r1, w2, b2)
    sum = Add (c2, r1)
    r2 = Relu (sum)
    pool = MaxPool <kernel_shape=[2,2], strides=[2,2]> (r2)
    mean = ReduceMean <keepdims=1> (pool, axes)
    flat = Flatten (mean)
    logits = Gemm <transB=1> (flat, w3, b3)
}
"""

BRANCHES = """
<ir_version: 10, opset_import: ["" : 20]>
branches (float[batch,3,8,8] input) => (float[batch,7,8,8] logits)
{
    a = Conv <kernel_shape=[1,1]> (input, w1)
    s = Sigmoid (a)
    b = Conv <kernel_shape=[1,1]> (input, w2)
    joined = Concat <axis=1> (b, s)
    logits = Mul (joined, factor)
}
"""


def build(text: str, **constants: NDArray[np.generic]) -> onnx.ModelProto:
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(array, name) for name, array in constants.items()
    )
    onnx.checker.check_model(model, full_check=True)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


@pytest.fixture(scope="module")
def residual() -> onnx.ModelProto:
    generator = np.random.default_rng(0)

    def normal(*shape: int) -> NDArray[np.float32]:
        return generator.normal(0, 0.3, shape).astype(np.float32)

    return build(
        RESIDUAL, w1=normal(4, 3, 3, 3), b1=normal(4), w2=normal(4, 4, 3, 3), b2=normal(4),
        w3=normal(5, 4), b3=normal(5), axes=np.array([2, 3], np.int64),
    )  # fmt: skip


@pytest.fixture(scope="module")
def branches() -> onnx.ModelProto:
    generator = np.random.default_rng(1)
    return build(
        BRANCHES,
        w1=generator.normal(size=(3, 3, 1, 1)).astype(np.float32),
        w2=generator.normal(size=(4, 3, 1, 1)).astype(np.float32),
        factor=np.array(0.5, np.float32),
    )


NORMALIZED = """
<ir_version: 10, opset_import: ["" : 20]>
normalized (float[batch,3,8,8] input) => (float[batch,3,8,8] logits)
{
    a = Conv <kernel_shape=[1,1]> (input, w)
    length = ReduceL2 <keepdims=1> (a, axes)
    safe = Clip (length, least)
    logits = Div (a, safe)
}
"""


def images(count: int = 8) -> list[tuple[str, NDArray[np.float32]]]:
    generator = np.random.default_rng(7)
    return [
        (f"{index:02x}", generator.normal(size=(1, 3, 8, 8)).astype(np.float32))
        for index in range(count)
    ]


def table_of(model: onnx.ModelProto) -> RangeTable:
    return collect_ranges(model, images(), method="minmax", seed=0)


def run(model: onnx.ModelProto) -> NDArray[np.float32]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options)
    return np.concatenate([session.run(None, {"input": image})[0] for _, image in images()])


def readers(model: onnx.ModelProto, name: str) -> list[str]:
    return [node.op_type for node in model.graph.node if name in node.input]


def params_of(model: onnx.ModelProto, value: str) -> tuple[float, int]:
    """Return scale and zero point of the pair that reads ``value``."""
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    (node,) = [n for n in model.graph.node if n.op_type == "QuantizeLinear" and n.input[0] == value]
    return float(constants[node.input[1]]), int(constants[node.input[2]])


def weight_scales_of(model: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
    return {
        t.name: onnx.numpy_helper.to_array(t)
        for t in model.graph.initializer
        if t.name.endswith("_scale")
    }


def quantized(model: onnx.ModelProto, scheme: QuantScheme) -> QuantizedGraph:
    return place_qdq(model, table_of(model), scheme)


def test_collect_sees_every_activation(residual: onnx.ModelProto) -> None:
    table = table_of(residual)

    assert list(table.ranges) == observed_names(residual)
    stacked = np.concatenate([image for _, image in images()])
    assert table.ranges["input"].lo == stacked.min()
    assert table.ranges["input"].hi == stacked.max()
    assert table.ranges["r1"].lo == 0.0


def test_table_does_not_depend_on_the_order_of_images(residual: onnx.ModelProto) -> None:
    forward = collect_ranges(residual, images(), method="entropy", seed=3)
    backward = collect_ranges(residual, reversed(images()), method="entropy", seed=3)

    assert forward == backward
    assert forward.sha256() == backward.sha256()


def test_collect_refuses_nothing_and_nan(residual: onnx.ModelProto) -> None:
    with pytest.raises(CalibrationError, match="no image"):
        collect_ranges(residual, [], method="minmax", seed=0)
    bad = np.full((1, 3, 8, 8), np.nan, np.float32)
    with pytest.raises(CalibrationError, match="NaN"):
        collect_ranges(residual, [("00", bad)], method="minmax", seed=0)


def test_fused_placement_is_what_tensorrt_fuses(residual: onnx.ModelProto) -> None:
    graph = quantized(residual, FUSED)
    model = graph.model

    assert graph.quantized == 3
    assert graph.left_float == ()
    # Nothing between a convolution and what follows; the skip branch of the addition is quantized.
    assert readers(model, "c1") == ["Relu"]
    assert readers(model, "c2") == ["Add"]
    assert readers(model, "sum") == ["Relu"]
    assert readers(model, "r1") == ["QuantizeLinear"]
    assert readers(model, "logits") == []
    zero_points = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8]
    assert all(
        not onnx.numpy_helper.to_array(t).any() for t in zero_points if "_int8" not in t.name
    )
    # Biases stay float.
    gemm = next(node for node in model.graph.node if node.op_type == "Gemm")
    assert gemm.input[2] == "b3"


def test_full_placement_quantizes_every_tensor(residual: onnx.ModelProto) -> None:
    model = quantized(residual, FULL).model

    for value in ("input", "r1", "r2", "pool", "mean", "flat"):
        assert readers(model, value) == ["QuantizeLinear"], value
    # A ReLU is computed with what is before it.
    assert readers(model, "c1") == ["Relu"]
    assert readers(model, "sum") == ["Relu"]
    assert model.graph.output[0].name == "logits"
    ends = [node.op_type for node in model.graph.node if "logits" in node.output]
    assert ends == ["DequantizeLinear"]
    # What only chooses values has its input's parameters.
    assert params_of(model, "pool") == params_of(model, "r2")
    assert params_of(model, "flat") == params_of(model, "mean")


def test_full_placement_of_branches(branches: onnx.ModelProto) -> None:
    model = quantized(branches, FULL).model

    # A sigmoid's parameters are fixed; the other branch is made at the concatenation's scale.
    assert params_of(model, "s") == (1 / 256, -128)
    assert params_of(model, "b") == params_of(model, "joined")
    concat = next(node for node in model.graph.node if node.op_type == "Concat")
    joined = params_of(model, "joined")
    assert params_of(model, "s_dequantized") == joined, "requantized on that edge only"
    assert all(name.endswith(("dequantized", "_1")) for name in concat.input)
    # A constant operand is a quantized tensor too.
    mul = next(node for node in model.graph.node if node.op_type == "Mul")
    assert [node.op_type for node in model.graph.node if mul.input[1] in node.output] == [
        "DequantizeLinear"
    ]


def test_16_bits_have_the_same_points(branches: onnx.ModelProto) -> None:
    narrow, wide = (quantized(branches, scheme).model for scheme in (FULL, WIDE))

    assert [node.op_type for node in wide.graph.node] == [
        node.op_type for node in narrow.graph.node
    ]
    assert wide.opset_import[0].version == 21, "the first whose Q/DQ take int16"
    assert params_of(wide, "s") == (1 / 32768, 0)
    assert params_of(wide, "b") == params_of(wide, "joined")
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in wide.graph.initializer}
    points = [node.input[2] for node in wide.graph.node if node.op_type == "QuantizeLinear"]
    assert {(constants[name].dtype.name, int(constants[name])) for name in points} == {("int16", 0)}
    (factor,) = [array for name, array in constants.items() if name.endswith("_int16")]
    assert np.abs(factor).max() == 32767, "a constant operand has the width of the others"


def test_16_bits_are_a_hundredth_as_far_from_the_float_graph(residual: onnx.ModelProto) -> None:
    """Weights that int8 holds exactly leave the noise of the activations alone."""
    generator = np.random.default_rng(1)
    exact = onnx.ModelProto()
    exact.CopyFrom(residual)
    for tensor in exact.graph.initializer:
        if tensor.name.startswith("w"):
            shape = tuple(tensor.dims)
            codes = generator.integers(-127, 128, shape)
            codes.reshape(len(codes), -1)[:, 0] = 127
            array = (codes / 128).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    expected = run(exact)
    errors = [np.abs(run(quantized(exact, s).model) - expected).max() for s in (FULL, WIDE)]

    assert 0 < errors[1] < errors[0] / 100


@pytest.mark.parametrize("scheme", [FUSED, FULL], ids=lambda scheme: scheme.placement)
def test_simulation_is_close_to_the_float_graph(
    residual: onnx.ModelProto, scheme: QuantScheme
) -> None:
    expected = run(residual)
    found = run(quantized(residual, scheme).model)

    signal_to_noise = 10 * np.log10((expected**2).sum() / ((expected - found) ** 2).sum())
    assert signal_to_noise > 30.0


def test_weight_scales_are_the_same_for_every_scheme(residual: onnx.ModelProto) -> None:
    """And so are all scales of targets that share a scheme."""
    table = table_of(residual)
    first, *others = (
        weight_scales_of(place_qdq(residual, table, scheme).model) for scheme in (FUSED, FULL, WIDE)
    )

    for other in others:
        assert first.keys() == other.keys()
        assert all(np.array_equal(first[name], other[name]) for name in first)
    assert TARGETS["jetson"].scheme == TARGETS["desktop-gpu"].scheme


@pytest.mark.parametrize("scheme", [FUSED, FULL], ids=lambda scheme: scheme.placement)
def test_one_scale_for_all_weights_of_a_tensor(
    residual: onnx.ModelProto, scheme: QuantScheme
) -> None:
    """The codes are those of max|w| / 127, and the noise is never less than per channel."""
    floats = {t.name: onnx.numpy_helper.to_array(t) for t in residual.graph.initializer}
    one = msgspec.structs.replace(scheme, weights="per_tensor")

    placed = quantized(residual, one).model

    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in placed.graph.initializer}
    for name in ("w1", "w2", "w3"):
        scales = arrays[f"{name}_scale"]
        expected = np.abs(floats[name]).max() / 127
        assert np.all(scales == scales[0])
        assert expected <= scales[0] <= expected * 1.001
        codes = np.rint(floats[name].astype(np.float64) / float(scales[0]))
        assert np.array_equal(arrays[f"{name}_int8"], codes)
    wanted = run(residual)
    coarse, fine = (
        np.square(run(model) - wanted).sum()
        for model in (placed, quantized(residual, scheme).model)
    )
    assert coarse > fine


def test_float_weights_are_gone(residual: onnx.ModelProto) -> None:
    names = {t.name for t in quantized(residual, FULL).model.graph.initializer}

    assert not {"w1", "w2", "w3"} & names


def test_a_table_that_lacks_a_tensor_is_refused(residual: onnx.ModelProto) -> None:
    table = table_of(residual)
    del table.ranges["r1"]

    with pytest.raises(CalibrationError, match="'r1'"):
        place_qdq(residual, table, FULL)


def test_what_is_divided_by_stays_float() -> None:
    """A step of its codes is as large as a small denominator, and zero is one of them."""
    model = build(
        NORMALIZED,
        w=np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1),
        axes=np.array([1], np.int64),
        least=np.array(1e-12, np.float32),
    )
    graph = quantized(model, FULL).model

    assert readers(graph, "a") == ["QuantizeLinear"]
    assert readers(graph, "length") == ["Clip"]
    assert readers(graph, "safe") == ["Div"]
    assert np.isfinite(run(graph)).all()
