from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from edgecls.core.errors import GraphError
from edgecls.export.passes import for_one_image

# A class token repeated for each image, as vision transformers have it; and a shape that is
# computed from the batch.
TOKEN = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[batch,3,4,4] input) => (float[batch,17,3] logits)
{
    size = Shape <end=1> (input)
    rest = Constant <value_ints=[3, 16]> ()
    flat = Concat <axis=0> (size, rest)
    pixels = Reshape (input, flat)
    tokens = Transpose <perm=[0,2,1]> (pixels)
    one = Constant <value_ints=[1, 3]> ()
    target = Concat <axis=0> (size, one)
    repeated = Expand (token, target)
    all = Concat <axis=1> (repeated, tokens)
    logits = Relu (all)
}
"""

QDQ = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[batch,4] input) => (float[batch,2] logits)
{
    w = DequantizeLinear <axis=0> (codes, scales, zeros)
    logits = Gemm <transB=1> (input, w)
}
"""


def build(text: str, **constants: np.ndarray) -> onnx.ModelProto:
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(array, name) for name, array in constants.items()
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def run(model: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"input": image})[0]


def test_what_depends_on_the_batch_only_becomes_constant() -> None:
    rng = np.random.default_rng(0)
    model = build(TOKEN, token=rng.standard_normal((1, 1, 3)).astype(np.float32))
    image = rng.standard_normal((1, 3, 4, 4)).astype(np.float32)

    fixed = for_one_image(model)

    assert [node.op_type for node in fixed.graph.node] == ["Reshape", "Transpose", "Concat", "Relu"]
    assert [node.output[0] for node in fixed.graph.node] == ["pixels", "tokens", "all", "logits"]
    assert np.array_equal(run(fixed, image), run(model, image))
    shapes = {v.name: v.type.tensor_type.shape for v in fixed.graph.value_info}
    assert all(dim.HasField("dim_value") for shape in shapes.values() for dim in shape.dim)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_weights_keep_their_codes() -> None:
    codes = np.arange(8, dtype=np.int8).reshape(2, 4)
    model = build(
        QDQ, codes=codes, scales=np.array([0.5, 0.25], np.float32), zeros=np.zeros(2, np.int8)
    )

    fixed = for_one_image(model)

    assert [node.op_type for node in fixed.graph.node] == ["DequantizeLinear", "Gemm"]
    kept = {t.name: onnx.numpy_helper.to_array(t) for t in fixed.graph.initializer}
    assert np.array_equal(kept["codes"], codes)


def test_a_free_image_size_is_refused() -> None:
    model = build(
        TOKEN.replace("batch,3,4,4", "batch,3,h,4"), token=np.zeros((1, 1, 3), np.float32)
    )

    with pytest.raises(GraphError, match="fixed image size"):
        for_one_image(model)
