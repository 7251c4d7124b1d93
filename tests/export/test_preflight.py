from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgecls.core.errors import GraphError, UnsupportedOperatorError
from edgecls.export.dla import judge
from edgecls.export.preflight import preflight
from edgecls.runtimes.tensorrt_build import (
    exclusive,
    import_api,
    make_logger,
    tensorrt_rtx_available,
)
from edgecls.targets.jetpack import JETPACKS, get_jetpack, get_module
from edgecls.targets.tensorrt_onnx import OPERATORS

needs_rtx = pytest.mark.skipif(
    tensorrt_rtx_available() is None, reason="TensorRT-RTX is not installed"
)
SIX, SEVEN = get_jetpack("6.2"), get_jetpack("7.2")


def graph(*nodes: onnx.NodeProto, opset: int = 20, **constants: Any) -> onnx.ModelProto:
    """A graph of 8 channels from "x" to "y"."""
    made = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)])


def node(operator: str, *inputs: str, name: str = "the_node", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, ["x", *inputs], ["y"], name, **attributes)


STEP, ZERO = np.array(0.1, np.float32), np.array(0, np.int8)
REFUSED = {
    "unknown": (graph(node("Det")), r"Det \(node 'the_node'\): its parser does not have it.*10\.3"),
    "later": (graph(node("STFT")), r"STFT.*JetPack 7\.0, 7\.1, 7\.2, 7\.2\.1 takes it"),
    "plugin": (graph(node("Conv", domain="com.acme")), r"domain 'com\.acme' is not ONNX's"),
    "zero point": (
        graph(node("QuantizeLinear", "s", "z"), s=STEP, z=np.array(3, np.int8)),
        r"QuantizeLinear \(node 'the_node'\): a zero point that is not 0",
    ),
    "uint8": (
        graph(node("QuantizeLinear", "s", "z"), s=STEP, z=np.array(0, np.uint8)),
        "quantization to UINT8, expected INT8",
    ),
    "int16": (
        graph(node("DequantizeLinear", "s", "z"), s=STEP, z=np.array(0, np.int16)),
        "quantization to INT16, expected INT8",
    ),
    "bias of int32": (
        graph(node("DequantizeLinear", "s", "z"), s=STEP, z=np.array(0, np.int32)),
        "quantization to INT32, expected INT8",
    ),
    "scale": (
        graph(node("QuantizeLinear", "s", "z"), s=-STEP, z=ZERO),
        "a scale that is not positive",
    ),
    "pooling": (
        graph(node("MaxPool", kernel_shape=[2, 2], dilations=[2, 2])),
        "a pooling window with dilations",
    ),
    "indices": (
        graph(helper.make_node("MaxPool", ["x"], ["y", "i"], "the_node", kernel_shape=[2, 2])),
        "the output Indices",
    ),
    "resize": (graph(node("Resize", "", "s", mode="cubic"), s=STEP), "mode 'cubic'"),
    "axes": (
        graph(
            helper.make_node("Shape", ["x"], ["axes"]), node("ReduceMean", "axes", keepdims=1)
        ),
        "axes that are computed",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_node_that_tensorrt_refuses_is_named(name: str) -> None:
    model, message = REFUSED[name]

    with pytest.raises(UnsupportedOperatorError, match=message) as caught:
        preflight(model, SIX, None)

    assert caught.value.node == "the_node"
    assert caught.value.exit_code == 4
    assert "JetPack 6.2" in str(caught.value) or "7.0" in str(caught.value)


def test_a_node_inside_a_branch_is_named_too() -> None:
    branch = helper.make_graph(
        [helper.make_node("Det", ["x"], ["inner"], "deep")], "branch", [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)],
    )  # fmt: skip
    model = graph(
        helper.make_node("If", ["c"], ["y"], "if", then_branch=branch, else_branch=branch),
        c=np.array(True),
    )

    with pytest.raises(UnsupportedOperatorError, match=r"Det \(node 'deep'\)"):
        preflight(model, SIX, None)


def test_opsets_and_types() -> None:
    with pytest.raises(GraphError, match=r"opset 21: TensorRT 10\.3 .* takes opset 9 to 20"):
        preflight(graph(node("Relu"), opset=21), SIX, None)
    preflight(graph(node("Relu"), opset=21), SEVEN, None)
    strange = graph(node("Add", "c"), c=np.zeros(1, np.uint16))
    with pytest.raises(GraphError, match=r"'c' at Add \(node 'the_node'\) is UINT16"):
        preflight(strange, SIX, None)
    with pytest.raises(GraphError, match="UINT8 only as the graph's input"):
        preflight(graph(node("Add", "c"), c=np.zeros(1, np.uint8)), SIX, None)
    eight = graph(node("Relu"))
    eight.graph.value_info.append(
        helper.make_tensor_value_info("y", TensorProto.FLOAT8E4M3FN, None)
    )
    with pytest.raises(GraphError, match=r"Orin Nano .* has no FP8"):
        preflight(eight, SIX, get_module("orin-nano"))
    preflight(eight, SEVEN, get_module("agx-thor"))


@pytest.mark.parametrize(
    "jetpack", [r for r in JETPACKS if not r.why_not()], ids=lambda r: r.version
)
def test_symmetric_int8_passes(jetpack: Any) -> None:
    model = graph(
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], "q"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], "dq"),
        s=STEP,
        z=ZERO,
    )

    found = preflight(model, jetpack, None)

    assert found.operators == {"DequantizeLinear": 1, "QuantizeLinear": 1}
    assert (found.dla, found.notes) == ((), ())


@needs_rtx
def test_the_operators_are_those_of_a_real_parser() -> None:
    """An oracle: TensorRT-RTX's own parser, of TensorRT 11's generation, is asked for each."""
    trt = import_api("tensorrt-rtx")
    every = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    with exclusive():
        log = make_logger(trt)
        builder = trt.Builder(log)
        parser = trt.OnnxParser(builder.create_network(0), log)
        theirs = {name for name in every | OPERATORS if parser.supports_operator(name)}
        del parser, builder

    assert theirs >= OPERATORS - {"DeformConv"}  # a plugin, which TensorRT-RTX does not ship
    # Newer than the tables of the JetPacks' TensorRT.
    assert theirs - OPERATORS <= {"CausalConvWithState", "LinearAttention", "Swish"}


SHAPES = {"x": [1, 8, 16, 16], "y": [1, 8, 16, 16]}
ON_DLA = {
    "conv": (node("Conv", "w"), [8, 8, 3, 3], "dla", ""),
    "wide kernel": (node("Conv", "w"), [8, 8, 33, 33], "gpu", "expected 1 to 32"),
    "stride": (node("Conv", "w", strides=[9, 9]), [8, 8, 3, 3], "gpu", "expected 1 to 8"),
    "channels": (node("Conv", "w"), [8193, 8, 3, 3], "gpu", "8192 channels"),
    "deconv": (node("ConvTranspose", "w"), [8, 8, 2, 2], "dla", ""),
    "padded": (node("ConvTranspose", "w", pads=[1, 1, 1, 1]), [8, 8, 2, 2], "gpu", "padding"),
    "grouped": (node("ConvTranspose", "w", group=2), [8, 4, 2, 2], "gpu", "groups"),
    "gemm": (node("Gemm", "w"), [8, 8], "dla", ""),
    "relu": (node("Relu"), [], "dla", ""),
    "relu6": (node("Clip", "zero"), [], "dla", ""),
    "clip": (node("Clip", "w"), [1], "gpu", "clips below"),
    "concat": (node("Concat", "x", axis=1), [], "dla", ""),
    "another axis": (node("Concat", "x", axis=2), [], "gpu", "another axis"),
    "lrn": (node("LRN", size=5), [], "dla", ""),
    "lrn of 11": (node("LRN", size=11), [], "gpu", "window"),
    "prelu": (node("PRelu", "w"), [8, 1, 1], "dla", ""),
    "group norm": (node("GroupNormalization"), [], "gpu", "normalization"),
    "pooling": (node("AveragePool", kernel_shape=[2, 2]), [], "unknown", "no rule"),
}  # fmt: skip


@pytest.mark.parametrize("name", ON_DLA)
def test_where_a_layer_runs_on_a_dla(name: str) -> None:
    layer, weight, runs, reason = ON_DLA[name]
    constants = {
        "w": numpy_helper.from_array(np.ones([min(size, 2) for size in weight], np.float32)),
        "zero": numpy_helper.from_array(np.zeros(1, np.float32)),
    }

    found, why = judge(layer, SHAPES | {"w": weight}, constants)

    assert found == runs
    assert reason in why
    assert bool(reason) == bool(why)


def test_a_dla_wants_two_spatial_axes() -> None:
    relu = node("Relu")

    assert judge(relu, {"y": [1, 197, 192]}, {}) == ("gpu", "not of two spatial axes")
    assert judge(relu, {}, {}) == ("unknown", "its shape is not known")
    assert judge(node("Gemm", "w"), {"y": [1, 10], "w": [8, 10]}, {}) == ("dla", "")


def test_a_dla_is_a_report() -> None:
    model = graph(
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], "q"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["a"], "dq"),
        helper.make_node("Conv", ["a", "w"], ["b"], "conv"),
        helper.make_node("GlobalAveragePool", ["b"], ["y"], "pool"),
        s=STEP,
        z=ZERO,
        w=np.zeros((8, 8, 3, 3), np.float32),
    )

    found = preflight(model, SIX, get_module("orin-nx-16gb"))

    assert [(n.node, n.runs) for n in found.dla] == [("conv", "dla"), ("pool", "unknown")]
    assert found.dla_cores == 2
    assert any("fixed shapes" in note for note in found.notes)
    assert any("Q/DQ" in note for note in found.notes)
    assert preflight(model, SIX, get_module("orin-nano")).notes == (
        "the Jetson Orin Nano has no DLA",
    )
    assert "does not drive the DLA" in preflight(model, SEVEN, get_module("agx-orin")).notes[0]
