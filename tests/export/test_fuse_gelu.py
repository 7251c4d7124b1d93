"""GELU written out, in the orders in which exporters write it."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from edgecls.core.values import relative_difference
from edgecls.export.passes.fuse_gelu import FuseGelu

NUMBERS = {"root": np.sqrt(2), "inverse": np.sqrt(0.5), "one": 1.0, "half": 0.5, "two": 2.0}

DIVIDED = ("Div", "x", "root", "a")
TIMES = ("Mul", "inverse", "x", "a")
ERF, PLUS = ("Erf", "a", None, "e"), ("Add", "e", "one", "p")
ORDERS = {
    "torch": [DIVIDED, ERF, PLUS, ("Mul", "x", "p", "m"), ("Mul", "m", "half", "y")],
    "half first": [TIMES, ERF, PLUS, ("Mul", "half", "p", "m"), ("Mul", "m", "x", "y")],
    "half of x": [
        DIVIDED, ERF, ("Add", "one", "e", "p"), ("Mul", "x", "half", "h"), ("Mul", "h", "p", "y"),
    ],
    "divided": [TIMES, ERF, PLUS, ("Mul", "p", "x", "m"), ("Div", "m", "two", "y")],
}  # fmt: skip
OTHERS = {
    "another slope": [("Mul", "x", "half", "a"), *ORDERS["torch"][1:]],
    "another factor": [*ORDERS["torch"][:3], ("Mul", "x", "p", "m"), ("Mul", "m", "two", "y")],
    "erf alone": [DIVIDED, ("Erf", "a", None, "y")],
    "erf read twice": [*ORDERS["torch"][:4], ("Mul", "m", "half", "n"), ("Add", "n", "e", "y")],
}


def build(steps, opset=20):
    nodes = [helper.make_node(op, [i for i in ends if i], [y], name=y) for op, *ends, y in steps]
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, (1, 50)) for name in "xy"]
    numbers = [numpy_helper.from_array(np.float32(v), k) for k, v in NUMBERS.items()]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], numbers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def run(model):
    session = onnxruntime.InferenceSession(model.SerializeToString())
    x = np.linspace(-6, 6, 50, dtype=np.float32)[None]
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize("order", ORDERS)
def test_is_fused(order):
    model = build(ORDERS[order])
    graph = ir.from_proto(model)

    assert FuseGelu()(graph).modified
    assert [node.op_type for node in graph.graph] == ["Gelu"]
    fused = ir.to_proto(graph)
    onnx.checker.check_model(fused, full_check=True)
    assert relative_difference(run(model), run(fused)) <= 1e-6


@pytest.mark.parametrize("order", OTHERS)
def test_something_else_is_left(order):
    model = build(OTHERS[order])
    graph = ir.from_proto(model)

    assert not FuseGelu()(graph).modified
    assert ir.to_proto(graph).graph.node == model.graph.node


def test_older_opset_has_no_gelu():
    graph = ir.from_proto(build(ORDERS["torch"], opset=17))

    assert not FuseGelu()(graph).modified
