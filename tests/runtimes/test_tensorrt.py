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

from edgecls.core.errors import BackendUnavailableError, EngineError
from edgecls.runtimes import cuda, load, tensorrt, tensorrt_build
from edgecls.runtimes.backend import Options
from edgecls.runtimes.backends import open_backend

from .conftest import CLASSES, PREPROCESS, SIDE, Made, MakeBundle, Weights, photo

GRAPH = b"a graph"


class FakeCuda:
    """CUDA's runtime over host memory; copies are made when the stream is waited for."""

    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)

    def __init__(self) -> None:
        self.memory: dict[int, Any] = {}
        self.queue: list[Any] = []
        self.gpus = 1

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

        def build(onnx: bytes, *, api: str) -> bytes:
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


def opened(model: bytes = GRAPH, *, engine: bool = False) -> Any:
    options = Options(precision="fp16", engine=engine)
    return open_backend("tensorrt", model, PREPROCESS, options)


@pytest.mark.parametrize("batch", [-1, 1, 4])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float16", 2e-2)])
@pytest.mark.parametrize("count", [1, 6, 11])
def test_logits_are_the_engines(
    fakes: Fakes, weights: Weights, batch: int, dtype: str, tolerance: float, count: int
) -> None:
    fakes(dtype, batch)
    shape = (count, SIDE, SIDE, 3)
    pixels = np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)
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
