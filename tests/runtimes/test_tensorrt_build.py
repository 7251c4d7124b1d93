from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from edgecls.core.errors import BackendUnavailableError, GraphError, MissingError
from edgecls.runtimes import tensorrt_build
from edgecls.runtimes.tensorrt import asked_capability
from edgecls.runtimes.tensorrt_build import build_engine, tensorrt_rtx_available

from .conftest import Weights, make_onnx

needs_rtx = pytest.mark.skipif(
    tensorrt_rtx_available() is None, reason="TensorRT-RTX is not installed"
)
CHANNELS = 256


def convolution(kind: str, *, zero_point: int = 0, operator: str = "Conv") -> bytes:
    """A 3x3 convolution of 256 channels between two small layers: its weights are the engine."""
    onnx = pytest.importorskip("onnx")
    helper, array = onnx.helper, onnx.numpy_helper.from_array
    random = np.random.default_rng(0)
    dtype = np.float32 if kind == "fp32" else np.float16
    weight = random.normal(0, 0.05, (CHANNELS, CHANNELS, 3, 3)).astype(np.float32)
    constants = {"first": random.normal(0, 0.2, (CHANNELS, 3, 3, 3)).astype(dtype)}
    nodes = [helper.make_node("Conv", ["image", "first"], ["a"], "first")]
    if kind == "int8":
        steps = np.abs(weight).reshape(CHANNELS, -1).max(axis=1) / 127
        constants |= {
            "codes": np.rint(weight / steps[:, None, None, None]).astype(np.int8),
            "steps": steps.astype(dtype),
            "zeros": np.zeros(CHANNELS, np.int8),
            "step": np.array(0.05, dtype),
            "zero": np.array(zero_point, np.int8),
        }
        nodes += [
            helper.make_node("QuantizeLinear", ["a", "step", "zero"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["source"]),
            helper.make_node("DequantizeLinear", ["codes", "steps", "zeros"], ["weight"], axis=0),
        ]
    else:
        constants["weight"] = weight.astype(dtype)
    source = "source" if kind == "int8" else "a"
    nodes += [
        helper.make_node(operator, [source, "weight"], ["b"], "second"),
        helper.make_node("GlobalAveragePool", ["b"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["logits"]),
    ]
    kind_of = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", kind_of, ["batch", 3, 32, 32])],
        [helper.make_tensor_value_info("logits", kind_of, ["batch", CHANNELS])],
        [array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


@needs_rtx
def test_an_engine_keeps_the_types_of_its_graph() -> None:
    sizes = {
        kind: len(build_engine(convolution(kind), api="tensorrt-rtx"))
        for kind in ("fp32", "fp16", "int8")
    }

    # The weights of the large convolution: 4, 2 and 1 bytes each.
    numbers = CHANNELS * CHANNELS * 9
    assert sizes["fp32"] - sizes["fp16"] == pytest.approx(2 * numbers, rel=0.1)
    assert sizes["fp16"] - sizes["int8"] == pytest.approx(numbers, rel=0.1)


@needs_rtx
@pytest.mark.parametrize("batch", ["batch", 1, 4])
def test_any_batch_builds(weights: Weights, batch: Any) -> None:
    assert len(build_engine(make_onnx(weights, batch=batch), api="tensorrt-rtx")) > 1000


@needs_rtx
@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (lambda: b"", "no outputs"),
        (lambda: b"hello", "no outputs"),
        (
            lambda: convolution("fp32", operator="NoSuchOperator"),
            r"node 1 \(NoSuchOperator 'second'\)",
        ),
        (lambda: convolution("int8", zero_point=3), r"node \d+ \(\w+QuantizeLinear|zero point"),
    ],
    ids=["empty", "no graph", "unknown operator", "zero point"],
)
def test_graphs_that_are_refused_name_the_node(graph: Any, message: str) -> None:
    with pytest.raises(GraphError, match=message) as caught:
        build_engine(graph(), api="tensorrt-rtx")

    assert "tensorrt_rtx" in str(caught.value)


@needs_rtx
def test_a_turing_gpu_is_asked_for_by_name() -> None:
    """TensorRT-RTX's engines run from Ampere on, unless they are asked for another."""
    assert asked_capability("tensorrt-rtx", (7, 5)) == (7, 5)
    assert asked_capability("tensorrt-rtx", (8, 0)) is None
    assert asked_capability("tensorrt", (7, 5)) is None

    plain, turing = (
        build_engine(convolution("int8"), api="tensorrt-rtx", compute_capability=asked)
        for asked in (None, asked_capability("tensorrt-rtx", (7, 5)))
    )
    assert plain != turing


@needs_rtx
def test_only_the_batch_may_be_free(weights: Weights) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(make_onnx(weights))
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"

    with pytest.raises(GraphError, match="only the batch may be free"):
        build_engine(model.SerializeToString(), api="tensorrt-rtx")


# The garbage collector runs where TensorRT logs.
COLLECTED = """
import gc, sys
from edgecls.core.errors import GraphError
from edgecls.runtimes import tensorrt_build

ours = sys.argv[1] == "an error's"
make_logger = tensorrt_build.make_logger

def collecting(trt):
    class Log(type(make_logger(trt))):
        def log(self, severity, message):
            if ours or gc.isenabled():
                gc.collect()
    return Log()

def build():
    try:
        tensorrt_build.build_engine(b"hello", api="tensorrt-rtx")
    except GraphError as error:
        return error

class Cycle:
    pass

cycle, trt = Cycle(), tensorrt_build.import_api("tensorrt-rtx")
cycle.itself = cycle
if ours:
    cycle.error = build()
else:
    cycle.builder = trt.Builder(make_logger(trt))
gc.set_threshold(1 << 30)
del cycle
tensorrt_build.make_logger = collecting
build()
assert gc.isenabled()
"""


@needs_rtx
@pytest.mark.parametrize("garbage", ["an error's", "another builder's"])
def test_a_collected_builder_does_not_stop_a_build(garbage: str) -> None:
    """TensorRT logs under a lock that destroying a builder takes: seen to stop for good."""
    done = subprocess.run([sys.executable, "-c", COLLECTED, garbage], timeout=120, check=False)

    assert done.returncode == 0


@needs_rtx
def test_building_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(GraphError):
        build_engine(convolution("fp32", operator="NoSuchOperator"), api="tensorrt-rtx")

    assert capfd.readouterr() == ("", "")


def test_tensorrt_without_a_gpu_is_an_error_and_no_crash() -> None:
    code = (
        "from edgecls.core.errors import MissingError\n"
        "from edgecls.runtimes.backends import why_not\n"
        "from edgecls.runtimes.cuda import current_device\n"
        "try: current_device()\n"
        "except MissingError: print(why_not('tensorrt-rtx')); print(why_not('tensorrt'))\n"
        "else: print('a GPU'); print()\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == "a GPU" or ("install" in first and "install" in second)


def test_an_old_tensorrt_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        __version__ = "8.2.1"

        class NetworkDefinitionCreationFlag:
            EXPLICIT_BATCH = 0

    monkeypatch.setattr(tensorrt_build, "find_module", lambda api: "tensorrt")
    monkeypatch.setattr(tensorrt_build.importlib, "import_module", lambda name: Old)

    with pytest.raises(BackendUnavailableError, match=r"8\.2\.1 is too old"):
        tensorrt_build.import_api("tensorrt")


def test_a_library_that_does_not_load_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> Any:
        raise OSError("libnvinfer.so: cannot open shared object file")

    monkeypatch.setattr(tensorrt_build, "find_module", lambda api: "tensorrt_rtx")
    monkeypatch.setattr(tensorrt_build.importlib, "import_module", broken)

    with pytest.raises(MissingError, match="cannot open shared object"):
        tensorrt_build.import_api("tensorrt-rtx")
    assert tensorrt_rtx_available() is None
