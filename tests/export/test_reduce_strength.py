from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from edgecls.export.passes.reduce_strength import ReduceStrength


def build(body: str, **constants: np.ndarray) -> onnx.ModelProto:
    text = f"""
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[2,3] x) => (float[2,3] y) {{ {body} }}
    """
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(array, np.float32), name)
        for name, array in constants.items()
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def reduced(model: onnx.ModelProto) -> tuple[bool, onnx.ModelProto]:
    graph = ir.from_proto(model)
    modified = ReduceStrength()(graph).modified
    return modified, ir.to_proto(graph)


@pytest.mark.parametrize(
    ("body", "constants"),
    [
        ("y = Div (x, c)", {"c": 3.0}),
        ("y = Div (x, c)", {"c": [1.0, -2.0, 1e-20]}),
        ("y = Pow (x, c)", {"c": 2.0}),
        ("h = Div (x, c)\n y = Pow (h, two)", {"c": [[4.0], [0.5]], "two": [2.0]}),
    ],
)
def test_it_becomes_a_multiplication(body: str, constants: dict[str, np.ndarray]) -> None:
    model = build(body, **constants)
    data = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)

    modified, changed = reduced(model)

    assert modified
    assert len(changed.graph.node) == body.count("=")
    assert {node.op_type for node in changed.graph.node} == {"Mul"}
    onnx.checker.check_model(changed, full_check=True)
    (expected,), (found,) = (ReferenceEvaluator(m).run(None, {"x": data}) for m in (model, changed))
    np.testing.assert_allclose(found, expected, rtol=3e-7)


@pytest.mark.parametrize(
    ("body", "constants"),
    [
        ("y = Div (x, c)", {"c": [1.0, 0.0, 1.0]}),
        ("y = Div (c, x)", {"c": 2.0}),
        ("y = Div (x, x)", {}),
        ("y = Pow (x, c)", {"c": 3.0}),
        ("y = Pow (x, c)", {"c": [2.0, 2.0, 1.0]}),
    ],
)
def test_what_is_none_stays(body: str, constants: dict[str, np.ndarray]) -> None:
    modified, changed = reduced(build(body, **constants))

    assert not modified
    assert [node.op_type for node in changed.graph.node] == [body.split()[2]]
