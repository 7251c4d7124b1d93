"""Products that are quantized as they run, against sums of integers made by hand."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from edgecls.calibration.placement import integer_products, place_weights
from edgecls.calibration.scheme import quantize_weights, weight_scales

# Two products read one value, one has rows and a bias in an Add, Gemms lie either way round; what
# is small, scaled or a convolution stays float.
NET = """
<ir_version: 10, opset_import: ["" : 20]>
net (float[1,3,8,8] input) => (float[1,24] logits, float[5,24] rows, float[1,24] left)
{
    image = Conv <kernel_shape=[3,3], pads=[1,1,1,1]> (input, w_conv)
    flat = Flatten (image)
    a = Gemm <transB=1> (flat, w_a, b_a)
    b = MatMul (flat, w_b)
    sum = Add (a, b)
    more = Expand (sum, shape)
    product = MatMul (more, w_c)
    rows = Add (product, b_c)
    logits = Gemm (sum, w_d, b_d)
    scaled = Gemm <alpha=0.5> (sum, w_d, b_d)
    small = MatMul (scaled, w_e)
    left = Identity (small)
}
"""
SHAPES = {
    "w_conv": (48, 3, 3, 3), "w_a": (64, 3072), "b_a": (64,), "w_b": (3072, 64),
    "w_c": (64, 24), "b_c": (24,), "w_d": (64, 24), "b_d": (24,), "w_e": (24, 24),
}  # fmt: skip


@pytest.fixture
def model() -> onnx.ModelProto:
    made = onnx.parser.parse_model(NET)
    rng = np.random.default_rng(3)
    for name, shape in SHAPES.items():
        made.graph.initializer.append(
            numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
        )
    made.graph.initializer.append(numpy_helper.from_array(np.asarray([5, 64]), "shape"))
    return onnx.shape_inference.infer_shapes(made, strict_mode=True)


def run(model: onnx.ModelProto, feed: NDArray[np.float32], *outputs: str) -> list[NDArray]:
    asked = onnx.ModelProto()
    asked.CopyFrom(model)
    known = {output.name for output in asked.graph.output}
    asked.graph.output.extend(
        onnx.helper.make_empty_tensor_value_info(name) for name in outputs if name not in known
    )
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        asked.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    found: list[NDArray] = session.run(list(outputs), {"input": feed})
    return found


def by_hand(value: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return a product (N, I) x (I, O) of codes, summed as integers.

    The range holds zero, 255 steps cover it: the definition of DynamicQuantizeLinear.
    """
    low, high = min(0.0, float(value.min())), max(0.0, float(value.max()))
    step = np.float32((np.float32(high) - np.float32(low)) / np.float32(255))
    zero = int(np.clip(np.rint(np.float32(-low) / step), 0, 255))
    codes = np.clip(np.rint(value / step) + zero, 0, 255).astype(np.int64) - zero
    scales = weight_scales(weights, axis=1)
    integers = quantize_weights(weights, scales, axis=1).astype(np.int64)
    return (codes @ integers) * (float(step) * scales.astype(np.float64))


def test_each_product_is_a_sum_of_integers(model: onnx.ModelProto) -> None:
    made = integer_products(place_weights(model, dynamic="products"))
    arrays = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    feed = np.random.default_rng(4).standard_normal((1, 3, 8, 8)).astype(np.float32)
    flat, a, b, total, rows, logits = run(
        made.model, feed, "flat", "a", "b", "sum", "rows", "logits"
    )

    assert flat.min() < 0 < flat.max()
    for found, expected in (
        (a, by_hand(flat, arrays["w_a"].T) + arrays["b_a"]),
        (b, by_hand(flat, arrays["w_b"])),
        (rows, by_hand(np.repeat(total, 5, 0), arrays["w_c"]) + arrays["b_c"]),
        (logits, by_hand(total, arrays["w_d"]) + arrays["b_d"]),
    ):
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_it_answers_as_the_graph_with_dequantized_codes(model: onnx.ModelProto) -> None:
    placed = place_weights(model, dynamic="products")
    feed = np.random.default_rng(5).standard_normal((1, 3, 8, 8)).astype(np.float32)
    names = [output.name for output in model.graph.output]

    made = integer_products(placed)

    for found, expected in zip(
        run(made.model, feed, *names), run(placed, feed, *names), strict=True
    ):
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_what_stays_float_is_named(model: onnx.ModelProto) -> None:
    for index, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{index}"
    before = model.SerializeToString()

    made = integer_products(place_weights(model, dynamic="products"))

    operators = Counter(node.op_type for node in made.model.graph.node)
    assert made.quantized == operators["MatMulInteger"] == 4
    assert made.left_float == ("Conv_0", "Gemm_9", "MatMul_10")
    assert operators["Conv"] == operators["Gemm"] == operators["MatMul"] == 1
    # One for both readers of a value; the unpacked weights are the convolution's and the Gemm's.
    assert operators["DynamicQuantizeLinear"] == 3
    assert operators["DequantizeLinear"] == 2
    assert [output.name for output in made.model.graph.output] == ["logits", "rows", "left"]
    assert model.SerializeToString() == before
