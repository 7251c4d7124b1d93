from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from edgecls.export.passes.merge_factors import MergeFactors


def build(body: str) -> onnx.ModelProto:
    text = f"""
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[2,3] x) => (float[2,2] y)
    <float s = {{0.35}}, float[1] t = {{-2.0}}, float[1,1] wide = {{2.0}},
     float[3] many = {{1.0, 2.0, 3.0}}>
    {{ k = Transpose (x) {body} }}
    """
    model = onnx.parser.parse_model(text)
    onnx.checker.check_model(model, full_check=True)
    return model


def merged(model: onnx.ModelProto) -> tuple[bool, onnx.ModelProto]:
    graph = ir.from_proto(model)
    modified = MergeFactors()(graph).modified
    return modified, ir.to_proto(graph)


@pytest.mark.parametrize(
    "body",
    [
        "a = Mul (x, s) b = Mul (k, t) y = MatMul (a, b)",
        "a = Mul (t, x) b = Mul (s, k) y = MatMul (a, b)",
        "a = Mul (x, s) b = Mul (k, s) y = MatMul (a, b)",
        "a = Mul (x, s) c = Mul (k, t) b = Mul (c, s) y = MatMul (a, b)",
    ],
)
def test_two_factors_become_one(body: str) -> None:
    model = build(body)
    data = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)

    modified, changed = merged(model)

    assert modified
    assert [node.op_type for node in changed.graph.node].count("Mul") == 1
    onnx.checker.check_model(changed, full_check=True)
    (expected,), (found,) = (ReferenceEvaluator(m).run(None, {"x": data}) for m in (model, changed))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "body",
    [
        "a = Mul (x, s) y = MatMul (a, k)",
        "a = Mul (x, many) b = Mul (k, t) y = MatMul (a, b)",
        "a = Mul (x, s) b = Mul (k, wide) y = MatMul (a, b)",
        "a = Mul (x, s) b = Mul (k, s) m = MatMul (a, b) n = MatMul (x, b) y = Add (m, n)",
    ],
)
def test_others_stay(body: str) -> None:
    model = build(body)

    modified, changed = merged(model)

    assert not modified
    assert [n.op_type for n in changed.graph.node] == [n.op_type for n in model.graph.node]
