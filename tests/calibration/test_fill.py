"""Points added to a graph with Q/DQ of its own: what it has stays to the letter."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from edgecls.calibration.collect import collect_ranges, observed_names
from edgecls.calibration.placement import adopt_qdq, place_qdq
from edgecls.calibration.scheme import activation_params
from edgecls.core.ranges import RangeTable
from edgecls.core.values import QuantScheme
from edgecls.export.tflite import lower

FUSED = QuantScheme(activations="symmetric", placement="fused")
FULL = QuantScheme(activations="asymmetric", placement="full")
SCHEMES = pytest.mark.parametrize("scheme", [FUSED, FULL], ids=lambda s: s.placement)

# Q/DQ on one convolution's input only; the second is float, the pool's pair is behind it.
PARTIAL = """
<ir_version: 10, opset_import: ["" : 20]>
partial (float[batch,3,8,8] input) => (float[batch,5] logits)
{
    q0 = QuantizeLinear (input, s0, z0)
    x0 = DequantizeLinear (q0, s0, z0)
    w1d = DequantizeLinear <axis=0> (w1c, w1s, w1z)
    c1 = Conv <kernel_shape=[3,3], pads=[1,1,1,1]> (x0, w1d, b1)
    r1 = Relu (c1)
    c2 = Conv <kernel_shape=[3,3], pads=[1,1,1,1]> (r1, w2, b2)
    sum = Add (c2, r1)
    r2 = Relu (sum)
    pool = MaxPool <kernel_shape=[2,2], strides=[2,2]> (r2)
    q1 = QuantizeLinear (pool, s1, z1)
    x1 = DequantizeLinear (q1, s1, z1)
    c3 = Conv <kernel_shape=[1,1]> (x1, w4, b4)
    mean = ReduceMean <keepdims=0> (c3, axes)
    logits = Gemm <transB=1> (mean, w3, b3)
}
"""


def images(count: int = 6) -> list[tuple[str, NDArray[np.float32]]]:
    generator = np.random.default_rng(7)
    return [(str(i), generator.normal(size=(1, 3, 8, 8)).astype(np.float32)) for i in range(count)]


@pytest.fixture(scope="module")
def partial() -> onnx.ModelProto:
    generator = np.random.default_rng(0)

    def weights(*shape: int) -> NDArray[np.float32]:
        return generator.normal(0, 0.3, shape).astype(np.float32)

    constants: dict[str, NDArray[np.generic]] = {
        "s0": np.array(0.0312, np.float32), "z0": np.array(-3, np.int8),
        "w1c": generator.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8),
        "w1s": np.array([0.0011, 0.0023, 0.0031, 0.0017], np.float32),
        "w1z": np.zeros(4, np.int8), "b1": weights(4),
        "w2": weights(4, 4, 3, 3), "b2": weights(4),
        "s1": np.array(0.0213, np.float32), "z1": np.array(-128, np.int8),
        "w4": weights(6, 4, 1, 1), "b4": weights(6), "w3": weights(5, 6), "b3": weights(5),
        "axes": np.array([2, 3], np.int64),
    }  # fmt: skip
    model = onnx.parser.parse_model(PARTIAL)
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(array, name) for name, array in constants.items()
    )
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


@pytest.fixture(scope="module")
def table(partial: onnx.ModelProto) -> RangeTable:
    return collect_ranges(partial, images(), method="minmax", seed=0)


def arrays(model: onnx.ModelProto) -> dict[str, NDArray[np.generic]]:
    return {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}


def pair_of(model: onnx.ModelProto, value: str) -> tuple[float, int]:
    """Return the parameters with which a value is quantized."""
    node = next(n for n in model.graph.node if n.op_type == "QuantizeLinear" and value in n.input)
    constants = arrays(model)
    return float(constants[node.input[1]]), int(constants[node.input[2]])


def test_ranges_are_those_of_the_quantized_network(
    partial: onnx.ModelProto, table: RangeTable
) -> None:
    assert "x0" not in observed_names(partial)
    assert "w1d" not in observed_names(partial)
    # By hand: what the first convolution gives for the quantized input.
    constants = arrays(partial)
    codes = [np.clip(np.rint(x / np.float32(0.0312)) - 3, -128, 127) for _, x in images()]
    dequantized = np.concatenate([(c + 3) * np.float32(0.0312) for c in codes]).astype(np.float32)
    weights = constants["w1c"] * np.reshape(constants["w1s"], (-1, 1, 1, 1))
    padded = np.pad(dequantized, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    expected = np.einsum("nchwij,ocij->nohw", windows, weights)
    expected += np.reshape(constants["b1"], (1, -1, 1, 1))

    assert "c1" not in table.ranges  # it is computed together with its ReLU
    assert table.ranges["r1"].lo == pytest.approx(max(0.0, expected.min()), rel=1e-5)
    assert table.ranges["r1"].hi == pytest.approx(expected.max(), rel=1e-5)


def test_full_placement_leaves_nothing_in_float(
    partial: onnx.ModelProto, table: RangeTable
) -> None:
    filled = adopt_qdq(partial, FULL, table)

    assert filled.left_float == ()
    assert lower(adopt_qdq(partial, FULL).model).left_float != ()
    assert lower(filled.model).left_float == ()


@SCHEMES
def test_what_the_graph_has_stays(
    partial: onnx.ModelProto, table: RangeTable, scheme: QuantScheme
) -> None:
    graph = partial
    if scheme is FUSED:  # TensorRT's is symmetric
        graph = onnx.ModelProto()
        graph.CopyFrom(partial)
        for tensor in graph.graph.initializer:
            if tensor.name in {"z0", "z1"}:
                tensor.CopyFrom(onnx.numpy_helper.from_array(np.array(0, np.int8), tensor.name))
    filled = adopt_qdq(graph, scheme, table).model
    before, after = arrays(graph), arrays(filled)

    for name in ("s0", "z0", "s1", "z1", "w1c", "w1s", "w1z"):
        np.testing.assert_array_equal(after[name], before[name])
    assert pair_of(filled, "input") == (float(before["s0"]), int(before["z0"]))
    assert pair_of(filled, "pool") == (float(before["s1"]), int(before["z1"]))
    onnx.checker.check_model(filled, full_check=True)
    # The second convolution's input and weights are new, by the scheme.
    params = activation_params(table.ranges["r1"], scheme)
    assert pair_of(filled, "r1") == (params.scale, params.zero_point)
    assert after["w2_int8"].dtype == np.int8


def test_what_is_only_moved_to_a_pair_takes_its_parameters(
    partial: onnx.ModelProto, table: RangeTable
) -> None:
    filled = adopt_qdq(partial, FULL, table).model

    assert pair_of(filled, "r2") == pair_of(filled, "pool")


def test_names_that_are_taken_are_left_alone(partial: onnx.ModelProto) -> None:
    """A graph that was placed here once has the very names that placing gives."""
    model = onnx.ModelProto()
    model.CopyFrom(partial)
    taken = onnx.numpy_helper.from_array(np.array(0.0213, np.float32), "int8_-128")
    model.graph.initializer.append(taken)
    for node in model.graph.node:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"} and node.input[1] == "s1":
            node.input[1] = "int8_-128"
    ranges = collect_ranges(model, images(), method="minmax", seed=0)
    filled = adopt_qdq(model, FULL, ranges).model

    assert arrays(filled)["int8_-128"] == np.float32(0.0213)
    assert pair_of(filled, "pool") == (float(np.float32(0.0213)), -128)


def test_filling_a_filled_graph_changes_nothing(
    partial: onnx.ModelProto, table: RangeTable
) -> None:
    once = adopt_qdq(partial, FULL, table).model
    twice = adopt_qdq(once, FULL, table).model
    first, second = (
        ort.InferenceSession(model.SerializeToString()).run(None, {"input": images()[0][1]})[0]
        for model in (once, twice)
    )

    assert len(twice.graph.node) == len(once.graph.node)
    np.testing.assert_array_equal(first, second)


def test_readers_with_other_parameters_keep_them(partial: onnx.ModelProto) -> None:
    """A value that is quantized in two ways is made in a third, and requantized to each."""
    model = onnx.ModelProto()
    model.CopyFrom(partial)
    nodes = list(model.graph.node)
    extra = [
        onnx.helper.make_node("QuantizeLinear", ["r1", scale, "z1"], [f"{scale}_q"])
        for scale in ("sa", "sb")
    ] + [
        onnx.helper.make_node("DequantizeLinear", [f"{scale}_q", scale, "z1"], [f"{scale}_x"])
        for scale in ("sa", "sb")
    ]
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.array(value, np.float32), name)
        for name, value in (("sa", 0.031), ("sb", 0.017))
    )
    for node in nodes:
        if "r1" in node.input:
            scale = "sa_x" if node.op_type == "Conv" else "sb_x"
            node.input[list(node.input).index("r1")] = scale
    position = next(i for i, node in enumerate(nodes) if "r1" in node.output)
    del model.graph.node[:]
    model.graph.node.extend([*nodes[: position + 1], *extra, *nodes[position + 1 :]])
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    ranges = collect_ranges(model, images(), method="minmax", seed=0)
    filled = adopt_qdq(model, FULL, ranges).model

    params = activation_params(ranges.ranges["r1"], FULL)
    assert pair_of(filled, "r1") == (params.scale, params.zero_point)
    assert {pair_of(filled, "r1_dequantized")[0], *arrays_of(filled, "sa", "sb")} == {
        *arrays_of(model, "sa", "sb")
    }
    assert lower(filled).left_float == ()


def arrays_of(model: onnx.ModelProto, *names: str) -> list[float]:
    return [float(arrays(model)[name]) for name in names]


def test_a_float_graph_is_placed_as_ever(partial: onnx.ModelProto) -> None:
    """Adopting with a table and placing are one thing."""
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]>'
        "net (float[batch,3,8,8] input) => (float[batch,4,6,6] logits) { logits = Conv (input, w) }"
    )
    model.graph.initializer.append(
        onnx.numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "w")
    )
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    ranges = collect_ranges(model, images(), method="minmax", seed=0)

    assert place_qdq(model, ranges, FULL).model == adopt_qdq(model, FULL, ranges).model


def test_given_pairs_keep_their_width() -> None:
    """A graph of both widths: what only moves values takes the width of the pair it leads to."""
    text = """<ir_version: 10, opset_import: ["" : 21]>
    net (float[batch,3,8,8] input) => (float[batch,6,8,8] logits) {
      r = Relu (input)
      m = MaxPool <kernel_shape=[1,1]> (r)
      a = QuantizeLinear (m, s, narrow)
      b = DequantizeLinear (a, s, narrow)
      c = QuantizeLinear (input, s, wide)
      d = DequantizeLinear (c, s, wide)
      logits = Concat <axis=1> (b, d)
    }"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(value, name)
        for name, value in (
            ("s", np.array(0.02, np.float32)), ("narrow", np.array(4, np.int8)),
            ("wide", np.array(0, np.int16)),
        )
    )  # fmt: skip
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    scheme = QuantScheme(activations="symmetric", placement="full", activation_bits=16)
    ranges = collect_ranges(model, images(), method="minmax", seed=0)
    filled = adopt_qdq(model, scheme, ranges).model
    constants = arrays(filled)
    nodes = [n for n in filled.graph.node if n.op_type == "QuantizeLinear" and n.input[0] == "r"]

    assert [constants[node.input[2]].dtype for node in nodes] == [np.int8]
    # No kernel reads codes of 16 bits and writes some of 8.
    assert lower(filled).left_float == ("r",)
