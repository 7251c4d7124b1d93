"""Where layers run, held against what else the runtimes show of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecls.bundle import Bundle
from edgecls.core.errors import BackendUnavailableError
from edgecls.runtimes.litert_layers import layers_of
from edgecls.runtimes.onnxruntime_layers import layers_of as profiled_layers
from edgecls.runtimes.placement import Placement, find_placement
from edgecls.runtimes.tensorrt_layers import layers_of as inspected_layers

from .conftest import Made, MakeBundle, Weights, make_onnx

interpreter = pytest.importorskip("ai_edge_litert.interpreter")

# XNNPACK has no local response normalization: the graph is cut in two there.
CUT = """<ir_version: 9, opset_import: ["": 17]>
g (float[1,3,8,8] x) => (float[1,4] y) {
    a = Conv<pads=[1,1,1,1]>(x, first)
    b = Relu(a)
    c = LRN<size=3>(b)
    d = Conv<pads=[1,1,1,1], group=4>(c, second)
    e = GlobalAveragePool(d)
    f = Flatten(e)
    y = Gemm<transB=1>(f, third)
}"""
SHAPES = {"first": (4, 3, 3, 3), "second": (4, 1, 3, 3), "third": (4, 4)}
MACS = {"CONV_2D": 8 * 8 * 4 * 27, "DEPTHWISE_CONV_2D": 8 * 8 * 4 * 9, "FULLY_CONNECTED": 16}


@pytest.fixture(scope="module")
def cut() -> bytes:
    onnx = pytest.importorskip("onnx")
    from edgecls.export.tflite.convert import lower

    random = np.random.default_rng(0)
    model = onnx.parser.parse_model(CUT)
    for name, shape in SHAPES.items():
        values = random.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return lower(model).data


def opened(model: bytes, **more: Any) -> Any:
    found = interpreter.Interpreter(model_content=model, **more)
    found.allocate_tensors()
    return found


def test_what_xnnpack_took_has_no_memory_of_its_own(cut: bytes) -> None:
    """Tensors within a delegate are never allocated: an independent witness of each layer."""
    net = opened(cut)

    layers = layers_of(net)

    assert [(layer.operator, layer.where) for layer in layers if not layer.delegated] == [
        ("LOCAL_RESPONSE_NORMALIZATION", "LiteRT kernels")
    ]
    readers = [set(op["inputs"].tolist()) for op in net._get_ops_details()]
    results = {detail["index"] for detail in net.get_output_details()}
    for index, layer in enumerate(layers):
        output = int(net._get_ops_details()[index]["outputs"][0])
        crosses = output in results or any(
            output in readers[reader] and not layers[reader].delegated
            for reader in range(len(layers))
        )
        assert _allocated(net, output) == (crosses or not layer.delegated), layer


def _allocated(net: Any, tensor: int) -> bool:
    try:
        net.get_tensor(tensor)
    except ValueError:
        return False
    return True


def test_without_a_delegate_nothing_is_delegated(cut: bytes) -> None:
    kind = interpreter.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    with_delegate, without = (
        layers_of(opened(cut)),
        layers_of(opened(cut, experimental_op_resolver_type=kind)),
    )

    assert not any(layer.delegated for layer in without)
    assert [(one.name, one.operator, one.macs) for one in without] == [
        (one.name, one.operator, one.macs) for one in with_delegate
    ]


def test_multiplications_are_counted(cut: bytes) -> None:
    found = {layer.operator: layer.macs for layer in layers_of(opened(cut)) if layer.macs}

    assert found == MACS


@pytest.mark.parametrize(
    ("fixture", "precision"), [("tflite_float", "float32"), ("tflite_int8", "int8")]
)
def test_precision_of_litert(request: pytest.FixtureRequest, fixture: str, precision: str) -> None:
    layers = layers_of(opened(request.getfixturevalue(fixture)))

    assert {layer.precision for layer in layers} == {precision}


def test_placement_of_a_litert_bundle(make_bundle: MakeBundle, tflite_int8: bytes) -> None:
    path = make_bundle(Made("model.int8.tflite", "tflite", "int8", tflite_int8))

    found = find_placement(Bundle(path))

    assert (found.backend, found.artefact, found.precision) == (
        "litert", "model.int8.tflite", "int8"
    )  # fmt: skip
    assert (found.delegated, found.delegated_percent) == (len(found.layers), 100.0)
    assert found.delegated_macs_percent == 100.0


def test_placement_of_onnxruntime_is_what_ran(
    make_bundle: MakeBundle, weights: Weights, tmp_path: Path
) -> None:
    path = make_bundle(
        Made("model.fp32.onnx", "onnx", "fp32", make_onnx(weights)), target="desktop-gpu"
    )

    found = find_placement(Bundle(path), backend="onnxruntime")

    assert {layer.where for layer in found.layers} == {"CPUExecutionProvider"}
    assert {"Conv", "Gemm"} <= {layer.operator for layer in found.layers}
    assert {layer.precision for layer in found.layers} == {"float32"}
    assert found.delegated_macs_percent is None


def test_a_simulation_is_not_taken_for_the_target(
    make_bundle: MakeBundle, weights: Weights
) -> None:
    path = make_bundle(Made("model.fp32.onnx", "onnx", "fp32", make_onnx(weights)), target="jetson")

    with pytest.raises(BackendUnavailableError, match="no backend for jetson can run here"):
        find_placement(Bundle(path))


def test_a_node_that_cuda_left_to_the_cpu_is_not_delegated(tmp_path: Path) -> None:
    """In the layout of ONNX Runtime 1.31's profile, as its CPU provider writes it."""

    def node(name: str, operator: str, provider: str, reads: str, gives: str) -> dict[str, Any]:
        return {
            "cat": "Node", "name": f"{name}_kernel_time", "dur": 1,
            "args": {
                "op_name": operator, "provider": provider,
                "input_type_shape": [{reads: [1, 2]}], "output_type_shape": [{gives: [1, 2]}],
            },
        }  # fmt: skip

    profile = tmp_path / "profile.json"
    profile.write_text(json.dumps([
        {"cat": "Session", "name": "model_run", "dur": 9, "args": {}},
        node("conv", "Conv", "CUDAExecutionProvider", "float16", "float16"),
        node("take", "NonZero", "CPUExecutionProvider", "float", "int64"),
    ]))  # fmt: skip

    found = profiled_layers(profile, "CUDAExecutionProvider")

    assert [(one.name, one.delegated, one.precision) for one in found] == [
        ("conv", True, "float16"), ("take", False, "float32 -> int64")
    ]  # fmt: skip


INT8_10 = "Thirty-two wide channel vectorized row major Int8 format"


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ("conv1 + relu1", ("conv1 + relu1", "", "")),
        ({"Name": "c", "LayerType": "CaskConvolution", "Inputs": [{"Format/Datatype": INT8_10}],
          "Outputs": [{"Format/Datatype": INT8_10}]}, ("c", "CaskConvolution", "int8")),
        ({"Name": "r", "LayerType": "Reformat",
          "Inputs": [{"Format/Datatype": "Row major linear FP32"}],
          "Outputs": [{"Format/Datatype": "Channel major FP16 format where channel % 8 == 0"}]},
         ("r", "Reformat", "float32 -> float16")),
        ({"Name": "k", "LayerType": "kgen", "Inputs": [{"Format/Datatype": "Half"}],
          "Outputs": [{"Format/Datatype": "Int8"}]}, ("k", "kgen", "float16 -> int8")),
        ({"Name": "n", "LayerType": "gemm", "Inputs": [{"DataType": "Float", "Format": "kLINEAR"}],
          "Outputs": [{"DataType": "Float"}]}, ("n", "gemm", "float32")),
        ({"Name": "w", "LayerType": "Constant", "Inputs": [],
          "Outputs": [{"DataType": "E8M0"}]}, ("w", "Constant", "E8M0")),
    ],
)  # fmt: skip
def test_layers_of_tensorrts_inspector(layer: Any, expected: tuple[str, str, str]) -> None:
    found = inspected_layers(json.dumps({"Layers": [layer], "Bindings": ["x"]}), "TensorRT")

    assert [(one.name, one.operator, one.precision) for one in found] == [expected]
    assert found[0].delegated


def test_no_layers_are_nothing_delegated() -> None:
    empty = Placement(backend="litert", artefact="a", precision="int8", description={}, layers=())

    assert (empty.delegated_percent, empty.delegated_macs_percent) == (0.0, None)
