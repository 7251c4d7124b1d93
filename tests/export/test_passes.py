from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from edgecls.calibration.collect import collect_ranges
from edgecls.calibration.placement import place_qdq
from edgecls.core.errors import GraphError, UnsupportedOperatorError
from edgecls.export.passes.fold_batch_norm import FoldBatchNorm
from edgecls.export.passes.to_float16 import ToFloat16
from edgecls.targets import TARGETS

HEADER = '<ir_version: 10, opset_import: ["" : 20]>\n'

CONV_BN = "c = Conv <kernel_shape=[3,3]> (input, w, b)\n y = BatchNormalization (c, g, o, m, v)"
CONV_BN_NO_BIAS = (
    "c = Conv <kernel_shape=[3,3]> (input, w)\n y = BatchNormalization (c, g, o, m, v)"
)
BN_FIRST = (
    "n = BatchNormalization <epsilon=0.01> (input, g3, o3, m3, v3)\n"
    "y = Conv <kernel_shape=[3,3]> (n, w, b)"
)
SHARED = (
    "c = Conv <kernel_shape=[3,3]> (input, w, b)\n n = BatchNormalization (c, g, o, m, v)\n"
    "y = Add (n, c)"
)


def build(body: str) -> onnx.ModelProto:
    generator = np.random.default_rng(0)
    text = f"{HEADER}g (float[batch,3,6,6] input) => (float[batch,4,4,4] y) {{ {body} }}"
    model = onnx.parser.parse_model(text)
    shapes = {"w": (4, 3, 3, 3), "b": (4,)}
    shapes |= dict.fromkeys("gomv", (4,)) | {f"{name}3": (3,) for name in "gomv"}
    used = {name for node in model.graph.node for name in node.input}
    for name in sorted(used & set(shapes)):
        array = generator.normal(size=shapes[name]).astype(np.float32)
        if name.startswith("v"):
            array = np.abs(array) + np.float32(0.1)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.checker.check_model(model, full_check=True)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def image() -> NDArray[np.float32]:
    return np.random.default_rng(5).normal(size=(2, 3, 6, 6)).astype(np.float32)


def run(model: onnx.ModelProto, images: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    onnx.checker.check_model(model, full_check=True)
    session = ort.InferenceSession(model.SerializeToString())
    found: NDArray[np.float32] = session.run(
        None, {"input": image() if images is None else images}
    )[0]
    return found


@pytest.mark.parametrize(
    ("body", "left"),
    [
        (CONV_BN, ["Conv"]),
        (CONV_BN_NO_BIAS, ["Conv"]),
        (BN_FIRST, ["Conv", "Conv"]),
        (SHARED, ["Conv", "Conv", "Add"]),
    ],
    ids=["conv", "conv without bias", "before a conv", "shared conv"],
)
def test_fold_batch_norm_keeps_the_function(body: str, left: list[str]) -> None:
    model = build(body)
    graph = ir.from_proto(model)

    assert FoldBatchNorm()(graph).modified

    folded = ir.to_proto(graph)
    assert [node.op_type for node in folded.graph.node] == left
    assert np.allclose(run(folded), run(model), rtol=1e-5, atol=1e-5)


def test_fold_batch_norm_after_gemm() -> None:
    text = (
        f"{HEADER}g (float[batch,3] input) => (float[batch,4] y) "
        "{ c = Gemm <transB=1> (input, w, b)\n y = BatchNormalization (c, g, o, m, v) }"
    )
    model = onnx.parser.parse_model(text)
    generator = np.random.default_rng(0)
    for name, shape in {"w": (4, 3), "b": (4,), "g": (4,), "o": (4,), "m": (4,), "v": (4,)}.items():
        array = np.abs(generator.normal(size=shape)).astype(np.float32) + np.float32(0.1)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    graph = ir.from_proto(onnx.shape_inference.infer_shapes(model))
    FoldBatchNorm()(graph)
    folded = ir.to_proto(graph)
    inputs = {"input": generator.normal(size=(2, 3)).astype(np.float32)}

    assert [node.op_type for node in folded.graph.node] == ["Gemm"]
    expected, found = (
        ort.InferenceSession(m.SerializeToString()).run(None, inputs)[0] for m in (model, folded)
    )
    assert np.allclose(expected, found, rtol=1e-5, atol=1e-5)


def test_float16_casts_all_but_the_borders() -> None:
    model = build(CONV_BN)
    graph = ir.from_proto(model)
    ToFloat16()(graph)
    half = ir.to_proto(graph)

    kinds = {tensor.data_type for tensor in half.graph.initializer}
    assert kinds == {onnx.TensorProto.FLOAT16}
    for value in (half.graph.input[0], half.graph.output[0]):
        assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert [v.name for v in half.graph.output] == ["y"]
    assert np.allclose(run(half), run(model), rtol=2e-2, atol=2e-2)


LINEAR = 'Resize <mode="linear"> (input, , s)'
INITIALIZER = "<float[4] s = {1.0, 1.0, 1.5, 1.5}>"


@pytest.mark.parametrize(
    ("declared", "nodes"),
    [
        (INITIALIZER, f"r = {LINEAR}"),
        ("", f"s = Constant <value = float[4] {{1.0, 1.0, 1.5, 1.5}}> ()\n r = {LINEAR}"),
        (INITIALIZER, f"a = {LINEAR}\n p = ReduceSum <keepdims=0> (s)\n r = Mul (a, p)"),
        (INITIALIZER, f'a = {LINEAR}\n b = Resize <mode="nearest"> (input, , s)\n r = Add (a, b)'),
    ],
    ids=["an initializer", "a constant", "read by others", "of two"],
)
def test_float16_leaves_the_scales_of_resize(declared: str, nodes: str) -> None:
    text = f"{HEADER}g (float[1,3,6,6] input) => (float[1,3,9,9] y) {declared} {{ {nodes}\n"
    model = onnx.shape_inference.infer_shapes(onnx.parser.parse_model(f"{text} y = Relu (r) }}"))
    graph = ir.from_proto(model)
    ToFloat16()(graph)
    half = ir.to_proto(graph)

    kinds = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    for node in half.graph.node:
        assert node.op_type != "Resize" or kinds[node.input[2]] == onnx.TensorProto.FLOAT
        assert node.op_type != "ReduceSum" or kinds[node.input[0]] == onnx.TensorProto.FLOAT16
    expected, found = (run(m, image()[:1]) for m in (model, half))
    assert np.allclose(expected, found, rtol=2e-3, atol=2e-3)


def test_float16_refuses_computed_scales_of_resize() -> None:
    text = (
        f"{HEADER}g (float[1,3,6,6] input, float[4] s) => (float[1,3,H,W] y) "
        "{ y = Resize (input, , s) }"
    )
    graph = ir.from_proto(onnx.parser.parse_model(text))
    graph.graph.outputs[0].dtype = ir.DataType.FLOAT

    with pytest.raises(UnsupportedOperatorError, match="computed at run time"):
        ToFloat16()(graph)


def test_float16_refuses_what_it_cannot_hold() -> None:
    model = build(CONV_BN)
    model.graph.initializer[0].CopyFrom(
        onnx.numpy_helper.from_array(np.full(4, 1e6, np.float32), model.graph.initializer[0].name)
    )

    with pytest.raises(GraphError, match="65504"):
        ToFloat16()(ir.from_proto(model))


def test_float16_keeps_the_scales_of_a_calibrated_graph() -> None:
    model = build("y = Conv <kernel_shape=[3,3]> (input, w, b)")
    table = collect_ranges(model, [("00", image()[:1])], method="minmax", seed=0)
    single = place_qdq(model, table, TARGETS["jetson"].scheme).model
    graph = ir.from_proto(single)
    ToFloat16()(graph)
    half = ir.to_proto(graph)

    scales = [
        {
            tensor.name: onnx.numpy_helper.to_array(tensor).astype(np.float64)
            for tensor in m.graph.initializer
            if tensor.name.endswith("_scale") or tensor.name.startswith("float32_")
        }
        for m in (single, half)
    ]
    assert scales[0].keys() == scales[1].keys()
    assert all(np.array_equal(scales[0][name], scales[1][name]) for name in scales[0])
    # The weights' codes are the same too; the simulation differs by FP16's rounding alone.
    assert np.allclose(run(half), run(single), rtol=2e-2, atol=2e-2)


def test_float16_refuses_a_foreign_scale() -> None:
    model = build("y = Conv <kernel_shape=[3,3]> (input, w, b)")
    table = collect_ranges(model, [("00", image()[:1])], method="minmax", seed=0)
    graph = place_qdq(model, table, TARGETS["jetson"].scheme).model
    for tensor in graph.graph.initializer:
        if tensor.name.endswith("_scale"):
            values = onnx.numpy_helper.to_array(tensor) * np.float32(1.0001)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), tensor.name))

    with pytest.raises(GraphError, match="not representable"):
        ToFloat16()(ir.from_proto(graph))


def test_fold_batch_norm_refuses_training_mode() -> None:
    model = build(CONV_BN)
    norm = next(node for node in model.graph.node if node.op_type == "BatchNormalization")
    norm.attribute.append(onnx.helper.make_attribute("training_mode", 1))

    with pytest.raises(GraphError, match=r"model\.eval"):
        FoldBatchNorm()(ir.from_proto(model))


@pytest.mark.parametrize("reshaped", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_batch_norm_of_tokens_goes_into_the_product_before_it(reshaped: bool, shared: bool) -> None:
    """LeViT's linear layers: a product by weights, a Reshape to a matrix, its normalization."""
    body = "f = Flatten (input) n = BatchNormalization (m, g, o, mean, v)"
    body = body.replace("n =", "p = MatMul (f, w) n =" if reshaped else "m = MatMul (f, w) n =")
    if reshaped:
        body = body.replace("n =", "m = Reshape (p, rows) n =")
    body += " y = Add (n, m)" if shared else " y = Identity (n)"
    text = f"{HEADER}g (float[batch,3,6,6] input) => (float[batch,5] y) {{ {body} }}"
    model = onnx.parser.parse_model(text)
    generator = np.random.default_rng(0)
    constants = {
        "w": generator.normal(size=(108, 5)), "g": generator.normal(size=5),
        "o": generator.normal(size=5), "mean": generator.normal(size=5),
        "v": generator.uniform(0.5, 2, 5),
    }  # fmt: skip
    tensors = {name: array.astype(np.float32) for name, array in constants.items()}
    if reshaped:
        tensors["rows"] = np.asarray([-1, 5])
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(array, name) for name, array in tensors.items()
    )
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    graph = ir.from_proto(model)

    assert FoldBatchNorm()(graph).modified

    folded = ir.to_proto(graph)
    np.testing.assert_allclose(run(folded), run(model), rtol=1e-4, atol=1e-4)
    operators = [node.op_type for node in folded.graph.node]
    assert "BatchNormalization" not in operators
    # A value that others read too is normalized by factors of its own.
    assert ("Mul" in operators) == shared
