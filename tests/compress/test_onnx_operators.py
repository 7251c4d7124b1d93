"""Operators in torch against ONNX Runtime: each by itself, in the forms that graphs have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from edgecls.compress.onnx_operators import OPERATORS

IMAGE = (1, 6, 9, 8)
TOKENS = (1, 5, 12)


@dataclass(frozen=True)
class Case:
    """An operator with its constants and attributes, on a random tensor of a shape."""

    operator: str
    shape: tuple[int, ...] = IMAGE
    constants: Sequence[Any] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    positive: bool = False
    outputs: int = 1


def f32(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).normal(size=shape).astype(np.float32)


def i64(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def pool(**more: Any) -> dict[str, Any]:
    return {"kernel_shape": [3, 2], "strides": [2, 2], **more}


CASES = [
    *(Case(name) for name in (
        "Abs", "Elu", "Erf", "Exp", "Flatten", "Gelu", "GlobalAveragePool", "GlobalMaxPool",
        "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Neg", "Relu", "Sigmoid", "Softmax",
        "Softplus", "Tanh", "Transpose", "Squeeze",
    )),
    *(Case(name, positive=True) for name in ("Log", "Reciprocal", "Sqrt")),
    *(Case(name, constants=[f32(1, 6, 1, 1)]) for name in (
        "Add", "Div", "Max", "Min", "Mul", "Sub", "PRelu",
    )),
    Case("Pow", constants=[np.float32(2.0)]),
    Case("Max", constants=[f32(*IMAGE), f32(1)]),
    Case("Elu", attributes={"alpha": 0.4}),
    Case("HardSigmoid", attributes={"alpha": 1 / 6, "beta": 0.5}),
    Case("Gelu", attributes={"approximate": "tanh"}),
    Case("LeakyRelu", attributes={"alpha": 0.2}),
    Case("Softmax", attributes={"axis": 1}),
    Case("Clip", constants=[np.float32(0), np.float32(0.8)]),
    Case("Clip", constants=[None, np.float32(0.8)]),
    Case("Conv", constants=[f32(4, 6, 3, 3)]),
    Case("Conv", constants=[f32(4, 6, 3, 2), f32(4)],
         attributes={"pads": [0, 1, 2, 1], "strides": [2, 1], "dilations": [1, 2]}),
    Case("Conv", constants=[f32(6, 1, 3, 3), f32(6)],
         attributes={"group": 6, "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    Case("Conv", constants=[f32(6, 2, 4, 4)],
         attributes={"group": 3, "auto_pad": "SAME_LOWER", "strides": [3, 2]}),
    Case("Conv", constants=[f32(4, 6, 3, 3)], attributes={"auto_pad": "VALID"}),
    Case("Gemm", (3, 6), [f32(6, 4)]),
    Case("Gemm", (3, 6), [f32(4, 6), f32(4)], {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    Case("Gemm", (6, 3), [f32(6, 4), f32(4)], {"transA": 1}),
    Case("MatMul", TOKENS, [f32(12, 7)]),
    Case("MaxPool", attributes=pool()),
    Case("MaxPool", attributes=pool(pads=[1, 0, 0, 1], ceil_mode=1)),
    Case("MaxPool", attributes=pool(dilations=[2, 2], ceil_mode=1)),
    Case("MaxPool", attributes=pool(auto_pad="SAME_UPPER")),
    Case("AveragePool", attributes=pool()),
    Case("AveragePool", attributes=pool(pads=[1, 0, 1, 1])),
    Case("AveragePool", attributes=pool(pads=[1, 1, 1, 0], count_include_pad=1)),
    Case("AveragePool", attributes=pool(ceil_mode=1)),
    Case("AveragePool", attributes=pool(pads=[1, 0, 0, 1], ceil_mode=1, strides=[3, 3])),
    Case("ReduceMean", constants=[i64(2, 3)]),
    Case("ReduceMean", constants=[i64(-1)], attributes={"keepdims": 0}),
    *(Case(name, constants=[i64(1, 2)]) for name in ("ReduceMax", "ReduceMin", "ReduceSum")),
    Case("ReduceSum"),
    Case("ReduceSum", attributes={"noop_with_empty_axes": 1}),
    Case("Reshape", constants=[i64(0, 3, -1)]),
    Case("Flatten", attributes={"axis": 2}),
    Case("Transpose", attributes={"perm": [0, 2, 3, 1]}),
    Case("Squeeze", (1, 6, 1, 1), [i64(-1, 2)]),
    Case("Unsqueeze", (2, 3), [i64(0, -1)]),
    Case("Expand", (1, 6, 1, 1), [i64(1, 6, 3, 1)]),
    Case("Concat", constants=[f32(1, 2, 9, 8)], attributes={"axis": 1}),
    Case("Slice", constants=[i64(1), i64(5), i64(1), i64(2)]),
    Case("Slice", constants=[i64(0, -3), i64(4, 2**62), i64(2, -1)]),
    Case("Slice", constants=[i64(-1), i64(-(2**62)), i64(3), i64(-1)]),
    Case("Slice", constants=[i64(5), i64(1), i64(1), i64(-2)]),
    Case("Gather", constants=[np.int64(-1)], attributes={"axis": 1}),
    Case("Gather", constants=[np.array([[0, 2], [1, 5]], np.int64)], attributes={"axis": 1}),
    Case("Pad", constants=[i64(0, 1, 0, 2, 0, 0, 3, 1)]),
    Case("Pad", constants=[i64(1, 0, 2, 1), np.float32(0.5), i64(2, -1)]),
    Case("Pad", constants=[i64(0, 0, 1, 2, 0, 0, 3, 1)], attributes={"mode": "reflect"}),
    Case("Pad", constants=[i64(0, 0, 1, 2, 0, 0, 3, 1)], attributes={"mode": "edge"}),
    Case("Split", constants=[i64(1, 2, 3)], attributes={"axis": 1}, outputs=3),
    Case("Split", attributes={"axis": 2, "num_outputs": 2}, outputs=2),
    Case("LayerNormalization", TOKENS, [f32(12), f32(12)], {"epsilon": 1e-3}),
    Case("LayerNormalization", IMAGE, [f32(9, 8)], {"axis": 2}),
    Case("InstanceNormalization", IMAGE, [f32(6), f32(6)], {"epsilon": 1e-3}),
    Case("DepthToSpace", (1, 8, 3, 2), attributes={"blocksize": 2}),
    Case("DepthToSpace", (1, 8, 3, 2), attributes={"blocksize": 2, "mode": "CRD"}),
    Case("Dropout"),
]  # fmt: skip


def onnx_runtime(case: Case, x: np.ndarray) -> list[np.ndarray]:
    constants = [c for c in case.constants if c is not None]
    names = iter(f"c{index}" for index in range(len(constants)))
    inputs = ["x", *("" if c is None else next(names) for c in case.constants)]
    outputs = [f"y{index}" for index in range(case.outputs)]
    node = onnx.helper.make_node(case.operator, inputs, outputs, **case.attributes)
    graph = onnx.helper.make_graph(
        [node], "one", [onnx.helper.make_tensor_value_info("x", 1, x.shape)],
        [onnx.helper.make_empty_tensor_value_info(name) for name in outputs],
        [onnx.numpy_helper.from_array(np.asarray(c), f"c{i}") for i, c in enumerate(constants)],
    )  # fmt: skip
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9
    )
    model = onnx.shape_inference.infer_shapes(model)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.operator)
def test_an_operator_computes_what_onnx_runtime_does(case: Case) -> None:
    x = np.random.default_rng(1).normal(size=(3, *case.shape)).astype(np.float32)
    x = np.abs(x) + 0.1 if case.positive else x
    expected = [onnx_runtime(case, image) for image in x]

    inputs = [
        c if not isinstance(c, np.ndarray | np.generic) or np.asarray(c).dtype == np.int64
        else torch.from_numpy(np.asarray(c))
        for c in case.constants
    ]  # fmt: skip

    def one(image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = OPERATORS[case.operator]([image, *inputs], case.attributes)
        return found if isinstance(found, tuple) else (found,)

    found = torch.func.vmap(one)(torch.from_numpy(x))  # as a training maps it over a batch

    assert len(found) == case.outputs
    for index, values in enumerate(found):
        stacked = np.stack([parts[index] for parts in expected])
        assert values.shape == stacked.shape
        np.testing.assert_allclose(values.numpy(), stacked, rtol=2e-5, atol=2e-6)


def test_every_operator_is_tested() -> None:
    assert {case.operator for case in CASES} == set(OPERATORS)
