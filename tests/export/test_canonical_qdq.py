"""Q/DQ as exporters write it, by hand; ONNX Runtime is the oracle, to the last bit."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

from edgecls.core.errors import UnsupportedOperatorError
from edgecls.export.passes.canonical_qdq import CanonicalQdq
from edgecls.export.passes.contract import Pipeline
from edgecls.export.passes.fold_batch_norm import FoldBatchNorm
from edgecls.export.passes.narrow_weights import NarrowWeights
from edgecls.export.quantized import refuse_other_forms, without_rounding

HEAD = '<ir_version: 10, opset_import: ["" : {opset}]>\n'
CODES = np.random.default_rng(0).integers(-127, 128, (4, 3, 3, 3)).astype(np.int8)
SCALES = np.array([0.01, 0.02, 0.03, 0.005], np.float32)
WEIGHTS = CODES * SCALES.reshape(-1, 1, 1, 1)
ZERO = np.zeros(4, np.int8)


def build(body: str, opset: int = 20, **constants: object) -> onnx.ModelProto:
    text = (
        HEAD.format(opset=opset)
        + f"net (float[batch,3,6,6] input) => (float[batch,4,4,4] logits) {{ {body} }}"
    )
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    )
    onnx.checker.check_model(model)
    return model


def run(model: onnx.ModelProto) -> NDArray[np.float32]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options)
    tensors = np.random.default_rng(1).normal(size=(5, 3, 6, 6)).astype(np.float32)
    found: NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: tensors})[0]
    return found


def canonical(model: onnx.ModelProto) -> onnx.ModelProto:
    return ir.to_proto(CanonicalQdq()(ir.from_proto(model)).model)


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


ACTIVATION = "q = QuantizeLinear (input, s, z)\n x = DequantizeLinear (q, s, z)\n"
PLAIN = {"s": np.float32(0.04), "z": np.int8(3)}

FORMS = {
    "float-weights": build(  # what torch.onnx makes of torch.ao's FakeQuantize
        ACTIVATION
        + "wq = QuantizeLinear <axis=0> (w, ws, wz)\n wd = DequantizeLinear <axis=0> (wq, ws, wz)\n"
        "logits = Conv (x, wd)",
        **PLAIN, w=WEIGHTS, ws=SCALES, wz=ZERO,
    ),
    "constant-clip": build(  # Brevitas
        ACTIVATION + "wn = Clip (wc, lo, hi)\n wd = DequantizeLinear <axis=0> (wn, ws, wz)\n"
        "logits = Conv (x, wd)",
        **PLAIN, wc=CODES, ws=SCALES, wz=ZERO, lo=np.int8(-127), hi=np.int8(127),
    ),
    "activation-clip": build(
        "r = Relu (input)\n q = QuantizeLinear (r, s, z)\n c = Clip (q, lo, hi)\n"
        "x = DequantizeLinear (c, s, z)\n wd = DequantizeLinear <axis=0> (wc, ws, wz)\n"
        "logits = Conv (x, wd)",
        s=np.float32(0.02), z=np.int8(0), wc=CODES, ws=SCALES, wz=ZERO,
        lo=np.int8(-127), hi=np.int8(127),
    ),
    "unsigned": build(
        ACTIVATION + "wd = DequantizeLinear <axis=0> (wc, ws, wz)\n logits = Conv (x, wd)",
        s=np.float32(0.04), z=np.uint8(128), ws=SCALES, wz=np.full(4, 128, np.uint8),
        wc=(CODES.astype(np.int16) + 128).astype(np.uint8),
    ),
    "no-zero-point": build(
        "q = QuantizeLinear (input, s)\n x = DequantizeLinear (q, s)\n"
        "wd = DequantizeLinear <axis=0> (wc, ws)\n logits = Conv (x, wd)",
        s=np.float32(0.01), wc=CODES, ws=SCALES,
    ),
    "vectors-of-one": build(  # torch's TorchScript exporter
        ACTIVATION + "zi = Identity (wz)\n wd = DequantizeLinear <axis=0> (wc, ws, zi)\n"
        "logits = Conv (x, wd)",
        s=np.array([0.04], np.float32), z=np.array([3], np.int8), wc=CODES, ws=SCALES, wz=ZERO,
    ),
    "sixteen": build(
        ACTIVATION + "wd = DequantizeLinear <axis=0> (wc, ws, wz)\n logits = Conv (x, wd)",
        opset=21, s=np.float32(0.0001), z=np.uint16(32771), wc=CODES, ws=SCALES, wz=ZERO,
    ),
    "opset-13": build(
        ACTIVATION + "wd = DequantizeLinear <axis=0> (wc, ws, wz)\n logits = Conv (x, wd)",
        opset=13, **PLAIN, wc=CODES, ws=SCALES, wz=ZERO,
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_becomes_one_and_stays_the_same_function(form: str) -> None:
    source = FORMS[form]
    found = canonical(source)

    np.testing.assert_array_equal(run(found), run(source))
    assert [o for o in operators(found) if o != "Relu"].count("QuantizeLinear") == 1
    assert sorted(set(operators(found)) - {"Relu"}) == [
        "Conv", "DequantizeLinear", "QuantizeLinear",
    ]  # fmt: skip
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in found.graph.initializer}
    weights = next(n for n in found.graph.node if n.input[0] in arrays)
    np.testing.assert_array_equal(arrays[weights.input[0]], CODES)
    np.testing.assert_array_equal(arrays[weights.input[1]], SCALES)
    for node in found.graph.node:
        if node.op_type == "QuantizeLinear":
            expected = -128 if form == "no-zero-point" else 3
            if form in {"unsigned", "activation-clip"}:
                expected = 0
            assert arrays[node.input[2]] == np.int8(expected)
            assert arrays[node.input[2]].dtype == (np.int16 if form == "sixteen" else np.int8)
            assert arrays[node.input[1]].shape == ()


def test_transposed_weights_are_codes() -> None:
    body = (
        "t0 = DequantizeLinear <axis=0> (wc, ws, wz)\n t = Transpose <perm=[1,0]> (t0)\n"
        "q = QuantizeLinear (input, s, z)\n x = DequantizeLinear (q, s, z)\n logits = MatMul (x, t)"
    )
    text = (
        HEAD.format(opset=20) + f"net (float[batch,6] input) => (float[batch,4] logits) {{{body}}}"
    )
    model = onnx.parser.parse_model(text)
    codes = np.arange(-12, 12).reshape(4, 6).astype(np.int8)
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(value), name)
        for name, value in (*PLAIN.items(), ("wc", codes), ("ws", SCALES), ("wz", ZERO))
    )
    found = canonical(model)
    tensors = {"input": np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)}
    outputs = [
        ort.InferenceSession(m.SerializeToString()).run(None, tensors)[0] for m in (model, found)
    ]

    assert "Transpose" not in operators(found)
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=1e-6, atol=1e-7)
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in found.graph.initializer}
    weights = next(n for n in found.graph.node if n.input[0] in arrays)
    np.testing.assert_array_equal(arrays[weights.input[0]], codes.T)
    assert weights.attribute[0].i == 1


BLOCKS = onnx.helper.make_node(
    "DequantizeLinear", ["wc", "ws", "wz"], ["wd"], name="blocks", axis=1, block_size=1
)

REFUSED = {
    "asymmetric": (
        build(
            ACTIVATION + "wd = DequantizeLinear <axis=0> (wc, ws, wz)\n logits = Conv (x, wd)",
            **PLAIN, wc=CODES, ws=SCALES, wz=np.array([0, 0, 5, 0], np.int8),
        ),
        "asymmetric .zero point 5.*quantize weights symmetrically",
    ),
    "per-channel-activation": (
        build(
            "q = QuantizeLinear <axis=1> (input, s, z)\n x = DequantizeLinear <axis=1> (q, s, z)\n"
            "logits = Conv (x, w)",
            s=np.array([1, 2, 3], np.float32), z=np.zeros(3, np.int8), w=WEIGHTS,
        ),
        "scale per channel; quantize activations per tensor",
    ),
    "run-time-scale": (
        build(
            "m = ReduceMax <keepdims=0> (input)\n s = Mul (m, k)\n"
            "q = QuantizeLinear (input, s, z)\n x = DequantizeLinear (q, s, z)\n"
            "logits = Conv (x, w)",
            k=np.float32(1 / 127), z=np.int8(0), w=WEIGHTS,
        ),
        "computed at run time .dynamic quantization.; calibrate with images",
    ),
    "int16-weights": (
        build("wd = DequantizeLinear (wc, ws, wz)\n logits = Conv (input, wd)", opset=21,
              wc=CODES.astype(np.int16), ws=np.float32(1), wz=np.int16(0)),
        "the weights of Conv 'logits' are int16; quantize weights symmetrically to int8",
    ),
    "narrow-activation": (
        build(
            "q = QuantizeLinear (input, s, z)\n c = Clip (q, lo, hi)\n"
            "x = DequantizeLinear (c, s, z)\n logits = Conv (x, w)",
            s=np.float32(1), z=np.int8(0), lo=np.int8(-127), hi=np.int8(127), w=WEIGHTS,
        ),
        "clips codes -128..127 to -127..127; quantize activations with the whole range",
    ),
    "four-bit-clip": (
        build(
            "r = Relu (input)\n q = QuantizeLinear (r, s, z)\n c = Clip (q, lo, hi)\n"
            "x = DequantizeLinear (c, s, z)\n logits = Conv (x, w)",
            s=np.float32(1), z=np.uint8(0), lo=np.uint8(0), hi=np.uint8(15), w=WEIGHTS,
        ),
        "clips codes 0..255 to 0..15",
    ),
    "negative-scale": (
        build(ACTIVATION + "logits = Conv (x, w)", s=np.float32(-1), z=np.int8(0), w=WEIGHTS),
        "expected positive scales, found -1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", REFUSED)
def test_other_quantization_is_refused_with_its_node_and_a_fix(form: str) -> None:
    model, message = REFUSED[form]

    with pytest.raises(UnsupportedOperatorError, match=message):
        canonical(model)


@pytest.mark.parametrize("kind", [TensorProto.INT4, TensorProto.FLOAT8E4M3FN], ids=["int4", "fp8"])
def test_weights_of_other_types_are_refused(kind: int) -> None:
    model = build("wd = DequantizeLinear (wc, ws)\n logits = Conv (input, wd)", opset=21,
                  wc=CODES, ws=np.float32(0.01))  # fmt: skip
    model.graph.initializer[0].CopyFrom(
        onnx.helper.make_tensor("wc", kind, CODES.shape, np.zeros(CODES.size))
    )

    with pytest.raises(UnsupportedOperatorError, match="quantize to 8 bits"):
        canonical(model)


def test_scales_per_block_are_refused() -> None:
    model = build("wd = Identity (wc)\n logits = Conv (input, w)", opset=21, w=WEIGHTS, wc=CODES)
    del model.graph.node[:]
    model.graph.node.extend([BLOCKS, onnx.helper.make_node("Conv", ["input", "wd"], ["logits"])])
    shape = (4, 3, 3, 3)
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(array, name)
        for array, name in ((np.ones(shape, np.float32), "ws"), (np.zeros(shape, np.int8), "wz"))
    )

    with pytest.raises(UnsupportedOperatorError, match=r"'blocks'.*per block"):
        canonical(model)


@pytest.mark.parametrize(
    ("operator", "domain", "fix"),
    [
        ("QLinearConv", "", "QuantFormat.QDQ"),
        ("QLinearAdd", "com.microsoft", "QuantFormat.QDQ"),
        ("ConvInteger", "", "statically"),
        ("DynamicQuantizeLinear", "", "statically"),
        ("MatMulNBits", "com.microsoft", "per channel"),
    ],
)
def test_other_operators_of_quantization_are_refused(operator: str, domain: str, fix: str) -> None:
    node = onnx.helper.make_node(operator, ["input"], ["logits"], name="odd", domain=domain)
    model = onnx.ModelProto()
    model.graph.node.append(node)

    with pytest.raises(UnsupportedOperatorError, match=f"{operator} .node 'odd'.*{fix}"):
        refuse_other_forms(model)


@pytest.mark.parametrize("per_channel", [True, False])
def test_batch_norm_goes_into_the_scales(per_channel: bool) -> None:
    scales = SCALES if per_channel else SCALES[0]
    model = build(
        ACTIVATION
        + "wd = DequantizeLinear <axis=0> (wc, ws, wz)\n bd = DequantizeLinear (bc, bs)\n"
        "y = Conv (x, wd, bd)\n logits = BatchNormalization (y, gain, offset, mean, variance)",
        **PLAIN, wc=CODES, ws=scales, wz=ZERO if per_channel else np.int8(0),
        bc=np.array([100, -50, 7, 0], np.int32), bs=np.float32(0.01),
        gain=np.array([1.5, -0.5, 0.0, 2.0], np.float32), offset=np.ones(4, np.float32),
        mean=np.full(4, 0.1, np.float32), variance=np.full(4, 2.0, np.float32),
    )  # fmt: skip
    graph = Pipeline(CanonicalQdq(), FoldBatchNorm())(ir.from_proto(model)).model
    found = ir.to_proto(graph)

    assert "BatchNormalization" not in operators(found)
    assert found.graph.output[0].name == "logits"
    np.testing.assert_allclose(run(found), run(model), rtol=1e-5, atol=1e-5)
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in found.graph.initializer}
    conv = next(n for n in found.graph.node if n.op_type == "Conv")
    weights = next(n for n in found.graph.node if n.output[0] == conv.input[1])
    codes = arrays[weights.input[0]]
    np.testing.assert_array_equal(codes[0], CODES[0])
    np.testing.assert_array_equal(codes[1], -CODES[1])
    assert not codes[2].any()
    factor = np.array([1.5, 0.5, 2.0]) / np.sqrt(2.0 + 1e-5)
    expected = np.broadcast_to(scales, 4)[[0, 1, 3]] * factor
    np.testing.assert_allclose(arrays[weights.input[1]][[0, 1, 3]], expected, rtol=1e-6)


def test_only_weight_codes_of_128_change() -> None:
    codes = CODES.copy()
    codes[0, 0, 0, :2] = -128
    model = build(
        ACTIVATION + "wd = DequantizeLinear <axis=0> (wc, ws, wz)\n logits = Conv (x, wd)",
        **PLAIN, wc=codes, ws=SCALES, wz=ZERO,
    )  # fmt: skip
    graph = ir.from_proto(model)

    narrow = NarrowWeights()

    assert (narrow(graph).modified, narrow.changed) == (True, 2)
    assert (narrow(graph).modified, narrow.changed) == (False, 0)
    found = next(t for t in ir.to_proto(graph).graph.initializer if t.name == "wc")
    np.testing.assert_array_equal(
        onnx.numpy_helper.to_array(found), np.where(codes == -128, -127, codes)
    )


def test_without_rounding_keeps_the_range() -> None:
    model = build(
        ACTIVATION + "logits = Conv (x, w)", s=np.float32(0.01), z=np.int8(-128), w=WEIGHTS
    )
    tensors = np.random.default_rng(1).normal(size=(5, 3, 6, 6)).astype(np.float32)
    clipped = np.clip(tensors, 0.0, 2.55)
    float_model = build("logits = Conv (input, w)", w=WEIGHTS)
    session = ort.InferenceSession(float_model.SerializeToString())
    expected = session.run(None, {"input": clipped})[0]

    np.testing.assert_allclose(run(without_rounding(canonical(model))), expected, atol=1e-5)
