# ruff: noqa: N802, N815 - the names are NVIDIA's
"""The TensorRT backend on a machine without a GPU.

A stand-in for CUDA copies between two pieces of host memory, and one for TensorRT computes the
tiny classifier in numpy: what is tested is our side, the addresses, sizes, batches and the cache.
What the real libraries do is not tested here.
"""

from __future__ import annotations

import ctypes
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgecls.core.errors import BackendUnavailableError, BundleError, EngineError, UsageError
from edgecls.runtimes import cuda, load, tensorrt, tensorrt_build
from edgecls.runtimes.backend import Options
from edgecls.runtimes.backends import open_backend
from edgecls.runtimes.engine_options import EngineOptions
from edgecls.targets.target import BackendName

from .conftest import CLASSES, PREPROCESS, SIDE, Made, MakeBundle, Weights, photo

GRAPH = b"a graph"


class FakeCuda:
    """CUDA's runtime over host memory; copies are made when the stream is waited for."""

    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)

    def __init__(self) -> None:
        self.memory: dict[int, Any] = {}
        self.queue: list[Any] = []
        self.gpus = 1
        self.begun: list[Any] | None = None
        self.graphs: dict[int, list[Any]] = {}
        self.launched = 0

    def _allocate(self, size: int) -> tuple[int, int]:
        block = (ctypes.c_uint8 * size)(*[0xAB] * size)
        self.memory[ctypes.addressof(block)] = block
        return 0, ctypes.addressof(block)

    cudaMalloc = cudaMallocHost = _allocate

    def _free(self, address: int) -> tuple[int]:
        del self.memory[address]
        return (0,)

    cudaFree = cudaFreeHost = _free

    def cudaGetDeviceCount(self) -> tuple[int, int]:
        return (0, self.gpus)

    def cudaGetDeviceProperties(self, index: int) -> tuple[int, Any]:
        return 0, SimpleNamespace(name=b"Orin\0\0", major=8, minor=7)

    def cudaGetErrorString(self, error: int) -> tuple[int, bytes]:
        return 0, b"out of memory"

    def cudaStreamCreate(self) -> tuple[int, int]:
        return 0, 42

    def cudaStreamDestroy(self, stream: int) -> tuple[int]:
        return (0,)

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[int]:
        assert not self.queue, "work of before would be lost"
        self.begun, self.queue = self.queue, []
        return (0,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[int, list[Any]]:
        captured, self.queue, self.begun = self.queue, self.begun or [], None
        return 0, captured

    def cudaGraphInstantiate(self, graph: list[Any], flags: int) -> tuple[int, int]:
        self.graphs[id(graph)] = graph
        return 0, id(graph)

    def cudaGraphDestroy(self, graph: list[Any]) -> tuple[int]:
        return (0,)

    def cudaGraphLaunch(self, graph: int, stream: int) -> tuple[int]:
        self.launched += 1
        self.queue += self.graphs[graph]
        return (0,)

    def cudaGraphExecDestroy(self, graph: int) -> tuple[int]:
        del self.graphs[graph]
        return (0,)

    def cudaMemcpyAsync(
        self, target: int, source: int, size: int, kind: int, stream: int
    ) -> tuple[int]:
        device = target if kind == 1 else source
        assert size <= len(self.memory[device])
        self.queue.append(lambda: ctypes.memmove(target, source, size))
        return (0,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[int]:
        for work in self.queue:
            work()
        self.queue.clear()
        return (0,)


class FakeTensorRT:
    """The part of TensorRT's interface that we use; its engine is the classifier in numpy."""

    __version__ = "10.3.0"
    float32, float16 = "float32", "float16"
    TensorIOMode = SimpleNamespace(INPUT="in", OUTPUT="out")
    LayerInformationFormat = SimpleNamespace(JSON="Layers")
    NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)

    class ILogger:
        Severity = SimpleNamespace(ERROR=1, INTERNAL_ERROR=0)

        def __init__(self) -> None:
            pass

    def __init__(self, api: FakeCuda, weights: Weights, dtype: str, batch: int) -> None:
        self.api, self.weights, self.dtype, self.batch = api, weights, dtype, batch
        self.addresses: dict[str, int] = {}
        self.shape = (batch, 3, SIDE, SIDE)
        self.takes = b"engine"
        self.num_io_tensors = 2

    def Runtime(self, log: Any) -> Any:
        def deserialize_cuda_engine(data: bytes) -> Any:
            if not data.startswith(self.takes):
                log.log(1, "version mismatch")
                return None
            return self

        return SimpleNamespace(deserialize_cuda_engine=deserialize_cuda_engine)

    def create_engine_inspector(self) -> Any:
        layer = {"Name": "conv", "LayerType": "kgen", "Inputs": [{"Format/Datatype": "Half"}]}
        return SimpleNamespace(get_engine_information=lambda kind: json.dumps({kind: [layer]}))

    def create_execution_context(self) -> Any:
        return self

    def get_tensor_name(self, index: int) -> str:
        return ("image", "logits")[index]

    def get_tensor_mode(self, name: str) -> str:
        return {"image": "in", "logits": "out"}[name]

    def get_tensor_dtype(self, name: str) -> str:
        return self.dtype

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (self.batch, 3, SIDE, SIDE) if name == "image" else (self.batch, CLASSES)

    def get_tensor_profile_shape(self, name: str, index: int) -> list[tuple[int, ...]]:
        assert (name, index) == ("image", 0)
        return [(batch, 3, SIDE, SIDE) for batch in (1, 1, 8)]

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert self.batch == -1
        self.shape = shape
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == 42
        self.api.queue.append(self._run)
        return True

    def _run(self) -> None:
        dtype = np.dtype(self.dtype)
        memory = self.api.memory
        images = np.frombuffer(memory[self.addresses["image"]], dtype)
        images = images[: int(np.prod(self.shape))].reshape(self.shape)
        logits = self.weights.logits(images).astype(dtype)
        memory_out = np.frombuffer(memory[self.addresses["logits"]], dtype)
        memory_out[: logits.size] = logits.ravel()


Fakes = Any


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch, weights: Weights, tmp_path: Path) -> Fakes:
    def make(dtype: str = "float32", batch: int = -1) -> tuple[FakeCuda, FakeTensorRT, list[bytes]]:
        api = FakeCuda()
        trt = FakeTensorRT(api, weights, dtype, batch)
        built: list[bytes] = []

        def build(onnx: bytes, *, api: str, **_: Any) -> bytes:
            built.append(onnx)
            return b"engine of " + onnx

        monkeypatch.setenv("EDGECLS_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(cuda, "runtime_api", lambda: api)
        monkeypatch.setattr(tensorrt, "find_module", lambda name: "tensorrt")
        monkeypatch.setattr(tensorrt_build, "find_module", lambda name: "tensorrt")
        monkeypatch.setattr(tensorrt, "import_api", lambda name: trt)
        monkeypatch.setattr(tensorrt, "build_engine", build)
        return api, trt, built

    return make


def opened(model: bytes = GRAPH, **options: Any) -> Any:
    return open_backend("tensorrt", model, PREPROCESS, Options(precision="fp16", **options))


def some_pixels(count: int, seed: int = 5) -> Any:
    shape = (count, SIDE, SIDE, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("batch", [-1, 1, 4])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float16", 2e-2)])
@pytest.mark.parametrize("count", [1, 6, 11])
def test_logits_are_the_engines(
    fakes: Fakes, weights: Weights, batch: int, dtype: str, tolerance: float, count: int
) -> None:
    fakes(dtype, batch)
    pixels = some_pixels(count)
    backend = opened()

    first = backend.logits(pixels)
    backend.logits(255 - pixels)

    expected = weights.logits(PREPROCESS.normalize(pixels))
    np.testing.assert_allclose(first, expected, atol=tolerance)


def test_layers_are_the_inspectors(fakes: Fakes) -> None:
    fakes()

    layer = opened().layers(GRAPH)[0]

    assert (layer.name, layer.operator, layer.where, layer.precision) == (
        "conv", "kgen", "TensorRT", "float16"
    )  # fmt: skip


@pytest.mark.parametrize("batch", [-1, 4])
def test_the_same_batch_is_recorded_the_second_time_and_replayed(
    fakes: Fakes, weights: Weights, batch: int
) -> None:
    api, _, _ = fakes(batch=batch)
    backend = opened()
    counts, launches = [1, 1, 1, 1, 3, 1, 1], []
    for seed, count in enumerate(counts):
        pixels = some_pixels(count, seed)
        found = backend.logits(pixels)
        launches.append(api.launched)

        np.testing.assert_allclose(found, weights.logits(PREPROCESS.normalize(pixels)), atol=1e-5)

    # A free batch's recording is of one shape; a fixed one is always run whole.
    assert launches == ([0, 1, 2, 3, 3, 3, 4] if batch == -1 else [0, 1, 2, 3, 4, 5, 6])
    assert backend.description["cuda graph"] == "yes"
    backend.close()
    assert not api.graphs


def test_what_cannot_be_recorded_runs_as_it_is_and_says_why(
    fakes: Fakes, weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    api, trt, _ = fakes()
    backend = opened()
    run = trt.execute_async_v3
    monkeypatch.setattr(trt, "execute_async_v3", lambda stream: api.begun is None and run(stream))
    pixels = some_pixels(2)
    for _ in range(3):
        found = backend.logits(pixels)

        np.testing.assert_allclose(found, weights.logits(PREPROCESS.normalize(pixels)), atol=1e-5)

    assert (api.launched, api.graphs) == (0, {})
    assert backend.description["cuda graph"].startswith("no: TensorRT could not run")


def test_without_cuda_graphs_nothing_is_recorded(fakes: Fakes) -> None:
    api, _, _ = fakes()
    backend = opened(engine=EngineOptions(cuda_graph=False))
    for _ in range(3):
        backend.logits(some_pixels(1))

    assert not api.launched
    assert backend.description["cuda graph"] == "no"


def test_the_engine_says_where_it_comes_from(fakes: Fakes, tmp_path: Path) -> None:
    fakes()
    built, cached = opened().engine, opened().engine
    shipped = opened(b"engine, shipped", built=True).engine

    assert (built.outcome, cached.outcome, shipped.outcome) == ("built", "cached", "shipped")
    assert built.path == cached.path
    assert built.path.parent == tmp_path / "cache" / "engines"
    assert built.path.read_bytes() == b"engine of " + GRAPH
    assert built.build_s is not None
    assert cached.build_s is shipped.build_s is shipped.path is None


@pytest.mark.parametrize(
    "changes",
    [
        {"engine": EngineOptions(workspace_mb=64)}, {"engine": EngineOptions(max_batch=2)},
        {"engine": EngineOptions(opt_batch=8)}, {"calibration": b"a cache"},
    ],
)  # fmt: skip
def test_another_configuration_is_another_engine(fakes: Fakes, changes: dict[str, Any]) -> None:
    _, _, built = fakes()

    for _ in range(2):
        opened()
        opened(**changes)

    assert len(built) == 2


def test_a_graph_is_built_once_and_then_cached(fakes: Fakes) -> None:
    _, _, built = fakes()

    for _ in range(3):
        opened()
    opened(b"another graph")

    assert built == [GRAPH, b"another graph"]


def test_a_cached_engine_that_is_not_taken_is_built_again(fakes: Fakes) -> None:
    _, trt, built = fakes()
    opened()
    trt.takes = b"nothing"

    with pytest.raises(EngineError, match="version mismatch"):
        opened()

    assert built == [GRAPH] * 2


def test_a_graph_whose_engine_is_never_taken_gives_way_to_nothing(
    fakes: Fakes, make_bundle: MakeBundle
) -> None:
    _, trt, built = fakes()
    trt.takes = b"nothing"
    path = make_bundle(
        Made("model.int8.onnx", "onnx", "int8", b"a Q/DQ graph"),
        Made("model.implicit-int8.onnx", "onnx-calibrated", "int8", GRAPH, beside=b"TRT-"),
        target="jetson",
    )
    for implicit in (False, True):
        with pytest.raises(EngineError, match="version mismatch"):
            load(path, engine=EngineOptions(implicit_int8=implicit))

    assert built == [b"a Q/DQ graph"] * 2 + [GRAPH] * 2


def test_a_shipped_engine_of_another_version_gives_way_to_its_graph(
    fakes: Fakes, make_bundle: MakeBundle
) -> None:
    _, _, built = fakes()
    path = make_bundle(
        Made("model.fp16.onnx", "onnx", "fp16", GRAPH),
        Made("model.fp16.rtx.engine", "tensorrt-rtx", "fp16", b"old engine"),
        target="desktop-gpu",
    )

    predictor = load(path, backend="tensorrt-rtx")

    assert predictor.artefact.path == "model.fp16.onnx"
    assert built == [GRAPH]
    assert predictor.predict(photo()).top1.score > 0.2


def test_a_shipped_engine_runs(fakes: Fakes, make_bundle: MakeBundle) -> None:
    _, _, built = fakes()
    path = make_bundle(
        Made("model.fp16.onnx", "onnx", "fp16", GRAPH),
        Made("model.fp16.rtx.engine", "tensorrt-rtx", "fp16", b"engine, shipped"),
        target="desktop-gpu",
    )

    predictor = load(path)

    assert (predictor.backend, predictor.artefact.format) == ("tensorrt-rtx", "tensorrt-rtx")
    assert predictor.description["device"] == "Orin (compute capability 8.7)"
    assert not built


def test_options_that_change_the_engine_leave_the_shipped_one(
    fakes: Fakes, make_bundle: MakeBundle
) -> None:
    _, _, built = fakes()
    path = make_bundle(
        Made("model.fp16.onnx", "onnx", "fp16", GRAPH),
        Made("model.fp16.rtx.engine", "tensorrt-rtx", "fp16", b"engine, shipped"),
        target="desktop-gpu",
    )

    assert load(path, engine=EngineOptions(cuda_graph=False)).artefact.format == "tensorrt-rtx"
    assert load(path, engine=EngineOptions(max_batch=16)).artefact.format == "onnx"
    assert built == [GRAPH]


def test_implicit_int8_takes_the_float_graph_and_its_cache(
    fakes: Fakes, make_bundle: MakeBundle
) -> None:
    _, _, built = fakes()
    path = make_bundle(
        Made("model.int8.onnx", "onnx", "int8", b"a Q/DQ graph"),
        Made("model.implicit-int8.onnx", "onnx-calibrated", "int8", GRAPH, beside=b"TRT-"),
        target="jetson",
    )

    explicit = load(path)
    implicit = load(path, engine=EngineOptions(implicit_int8=True))

    assert (explicit.artefact.path, implicit.artefact.path) == (
        "model.int8.onnx", "model.implicit-int8.onnx",
    )  # fmt: skip
    assert built == [b"a Q/DQ graph", GRAPH]
    assert implicit.precision == "int8"
    assert "calibration cache" in implicit.description["quantized"]
    plain = make_bundle(Made("model.int8.onnx", "onnx", "int8", GRAPH), target="jetson")
    with pytest.raises(BundleError, match="--implicit-int8"):
        load(plain, backend="tensorrt", engine=EngineOptions(implicit_int8=True))


@pytest.mark.parametrize("backend", ["tensorrt-rtx", "onnxruntime"])
def test_implicit_int8_is_tensorrts_alone(
    fakes: Fakes, jetson_bundle: Path, backend: BackendName
) -> None:
    fakes()

    with pytest.raises(UsageError, match="no implicit quantization"):
        load(jetson_bundle, backend=backend, engine=EngineOptions(implicit_int8=True))


def test_close_gives_all_memory_back(fakes: Fakes) -> None:
    api, _, _ = fakes()
    backend = opened()
    assert len(api.memory) == 4

    backend.close()

    assert not api.memory


def test_no_gpu_and_no_memory_are_errors(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    api, _, _ = fakes()
    monkeypatch.setattr(FakeCuda, "cudaMalloc", lambda self, size: (2, 0))
    with pytest.raises(BackendUnavailableError, match="error 2: out of memory"):
        opened()

    api.gpus = 0
    with pytest.raises(BackendUnavailableError, match="no GPU"):
        opened()
