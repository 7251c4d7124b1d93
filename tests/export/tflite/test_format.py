"""The file itself, and graphs that cannot become one."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from onnx import helper

from edgecls.core.errors import GraphError, UnsupportedOperatorError
from edgecls.core.values import TensorSpec
from edgecls.export.tflite import lower, try_in_subprocess


def small(lab, batch=1, opset=20):
    constants = {"w": lab.rng.normal(size=(4, 3, 3, 3)).astype(np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["g"]),
        helper.make_node("Flatten", ["g"], ["y"]),
    ]
    return lab.graph(nodes, (batch, 3, 8, 8), constants, opset=opset)


@pytest.mark.parametrize("batch", [1, 4, "batch"])
def test_specs(lab, batch):
    lowered = lower(small(lab, batch))

    assert lowered.input == TensorSpec(name="x", shape=(1, 8, 8, 3), dtype="float32")
    assert lowered.output == TensorSpec(name="y", shape=(1, 4), dtype="float32")


def test_signature_and_identifier(lab):
    data = lower(small(lab), description="what it is").data

    model = schema.ModelT.InitFromPackedBuf(data)
    runner = Interpreter(model_content=data).get_signature_runner("serving_default")
    assert data[4:8] == b"TFL3"
    assert model.description == b"what it is"
    assert set(runner(x=np.zeros((1, 8, 8, 3), np.float32))) == {"y"}


def test_equal_graphs_give_equal_bytes(lab):
    model = small(lab)

    assert lower(model).data == lower(model).data


def test_the_graph_is_left_as_it_is(lab):
    model = lab.quantize(small(lab, "batch"))
    before = model.SerializeToString()

    lower(model)

    assert model.SerializeToString() == before


def test_constants_are_aligned_and_kept_once(lab):
    weight = lab.rng.normal(size=(3, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["c"], pads=[1] * 4),
        helper.make_node("Conv", ["c", "b"], ["d"], pads=[1] * 4),
        helper.make_node("GlobalAveragePool", ["d"], ["y"]),
    ]
    data = lower(lab.graph(nodes, (1, 3, 8, 8), {"a": weight, "b": weight.copy()})).data

    model = schema.Model.GetRootAs(data)
    held = [model.Buffers(i) for i in range(model.BuffersLength())]
    offsets = [b._tab.Vector(b._tab.Offset(4)) for b in held if b.DataLength()]
    assert all(offset % 16 == 0 for offset in offsets)
    assert sum(b.DataLength() == weight.nbytes for b in held) == 1


def test_what_no_output_depends_on_is_left_out(lab, operators):
    nodes = [
        helper.make_node("Add", ["x", "unused"], ["nobody"]),
        helper.make_node("Reshape", ["x", "there"], ["r"]),
        helper.make_node("Reshape", ["r", "back"], ["b"]),
        helper.make_node("Relu", ["b"], ["y"]),
    ]
    constants = {
        "there": np.asarray([1, 2, 6]), "back": np.asarray([1, 12]),
        "unused": np.arange(12, dtype=np.float32),
    }  # fmt: skip

    lowered = lower(lab.graph(nodes, (1, 12), constants))

    parsed = schema.ModelT.InitFromPackedBuf(lowered.data)
    assert operators(lowered) == {"RELU": 1}
    assert len(parsed.subgraphs[0].tensors) == 2
    assert all(buffer.data is None for buffer in parsed.buffers)


def test_versions_are_the_lowest(lab):
    def versions(model):
        parsed = schema.ModelT.InitFromPackedBuf(lower(model).data)
        return {code.builtinCode: code.version for code in parsed.operatorCodes}

    op = schema.BuiltinOperator
    assert versions(small(lab)) == {op.CONV_2D: 1, op.MEAN: 1, op.RESHAPE: 1}
    assert versions(lab.quantize(small(lab))) == {op.CONV_2D: 3, op.MEAN: 2, op.RESHAPE: 1}


def test_unknown_operator_is_named(lab):
    model = lab.one("Det", (1, 3, 3))

    with pytest.raises(UnsupportedOperatorError, match=r"Det \(node 'Det_0'\).*no TFLite lowering"):
        lower(model)


def test_operator_of_another_domain_is_named(lab):
    node = helper.make_node("Own", ["x"], ["y"], domain="somebody", name="mine")
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (1, 4))],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, (1, 4))],
    )
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("somebody", 1)]

    with pytest.raises(GraphError):
        lower(helper.make_model(graph, opset_imports=imports, ir_version=10))


def test_old_opset_is_refused(lab):
    with pytest.raises(GraphError, match="opset 13 or later, found 9"):
        lower(small(lab, opset=9))


def test_free_image_size_is_refused(lab):
    model = small(lab)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"

    with pytest.raises(GraphError, match="fixed size apart from the batch"):
        lower(model)


def test_two_outputs_are_refused(lab):
    model = small(lab)
    model.graph.output.append(helper.make_tensor_value_info("c", onnx.TensorProto.FLOAT, None))

    with pytest.raises(GraphError, match="one input and one output, found 1"):
        lower(model)


def test_integer_input_is_refused(lab):
    graph = helper.make_graph(
        [helper.make_node("Abs", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.INT32, (1, 4))],
        [helper.make_tensor_value_info("y", onnx.TensorProto.INT32, (1, 4))],
    )

    with pytest.raises(GraphError, match="float32"):
        lower(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))


def test_a_good_file_runs_in_a_subprocess(lab):
    try_in_subprocess(lower(lab.quantize(small(lab))).data)


@pytest.mark.parametrize("cut", ["empty", "half", "noise", "foreign"])
def test_a_bad_file_is_an_error_here(lab, cut):
    data = bytearray(lower(small(lab)).data)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, len(data) - 64, dtype=np.uint8).tobytes()
    bad = {
        "empty": b"", "half": bytes(data[: len(data) // 2]), "noise": bytes(data[:64]) + noise,
        "foreign": b"PK\x03\x04" + bytes(200),
    }  # fmt: skip

    with pytest.raises(GraphError, match="expected the TFLite file to run, found"):
        try_in_subprocess(bad[cut])
