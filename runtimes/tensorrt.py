"""ONNX graphs and engines on an NVIDIA GPU: TensorRT (Jetson, servers) and TensorRT-RTX (PCs)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, cast

import numpy as np

from ..core.errors import BundleError, EngineError
from ..core.files import sha256_bytes
from ..core.preprocess import Preprocess
from ..targets.target import BackendName
from . import cuda
from .backend import Backend, Batch, NativeTensor, Options
from .engine_cache import EngineCache, EngineKey
from .layer import Layer
from .tensorrt_build import (
    MAX_BATCH,
    TensorRTApi,
    build_engine,
    exclusive,
    find_module,
    import_api,
    make_logger,
)
from .tensorrt_layers import layers_of


class TensorRTBackend(Backend):
    """Runs an engine: the one that was given, or the cached one of a graph, built where missing."""

    layout: ClassVar[Literal["NHWC", "NCHW"]] = "NCHW"

    def __init__(
        self, name: BackendName, model: bytes, preprocess: Preprocess, options: Options
    ) -> None:
        """Load an engine or, for a graph, get its engine from the cache.

        Raises:
            MissingError: TensorRT or a GPU is not there.
            EngineError: The engine is for another TensorRT or GPU.
            GraphError: TensorRT does not take the graph.
        """
        version = self.check(name)
        api = cast(TensorRTApi, name)
        device = cuda.current_device()
        trt = import_api(api)
        self._log = make_logger(trt)
        self._as_json = trt.LayerInformationFormat.JSON
        self._runtime: Any = None
        self._engine: Any = None
        self._context: Any = None
        try:
            with exclusive():
                self._runtime = trt.Runtime(self._log)
            if options.engine:
                self._engine = self._load(model)
            else:
                key = EngineKey(
                    gpu=device.name,
                    compute_capability=device.compute_capability,
                    tensorrt=f"{name} {trt.__version__}",
                    onnx_sha256=sha256_bytes(model),
                    max_batch=MAX_BATCH,
                )
                self._engine = self._cached(api, model, key)
            if self._engine is None:
                raise EngineError(f"{name} {version} does not take the engine: {self._logged()}")
            with exclusive():
                self._context = self._engine.create_execution_context()
            if self._context is None:
                raise EngineError(f"{name} {version} cannot run the engine: {self._logged()}")
        except BaseException:
            self._release()
            raise
        self._input_name, self._output_name = _names(trt, self._engine)
        source = _native(trt, self._engine, self._input_name)
        result = _native(trt, self._engine, self._output_name)
        self._dynamic = source.shape[0] is None
        self._input = _buffer(source)
        self._output = _buffer(result)
        self._stream = cuda.call(cuda.runtime_api().cudaStreamCreate)
        self._context.set_tensor_address(self._input_name, self._input.device)
        self._context.set_tensor_address(self._output_name, self._output.device)
        super().__init__(
            name, preprocess, source, result, max_batch=MAX_BATCH, buffer=self._input.host
        )
        major, minor = device.compute_capability
        self.description = {
            "library": f"{name} {version}",
            "device": f"{device.name} (compute capability {major}.{minor})",
        }

    @classmethod
    def check(cls, name: BackendName) -> str:
        """Return TensorRT's version; the GPU is looked for before the library is loaded.

        Raises:
            MissingError: TensorRT, cuda-bindings, the driver or a GPU is not there.
        """
        find_module(cast(TensorRTApi, name))
        cuda.current_device()
        return str(import_api(cast(TensorRTApi, name)).__version__)

    def layers(self, model: bytes) -> tuple[Layer, ...]:  # noqa: ARG002 - this one loaded it
        """Return what the engine inspector tells of the layers."""
        engine = self._engine
        with exclusive():
            inspector = engine.create_engine_inspector()
            told = inspector.get_engine_information(self._as_json)
        return layers_of(str(told), "TensorRT")

    def close(self) -> None:
        """Give back the GPU's memory."""
        with self._lock:
            self._release()
            self._buffer = self._memory(0)
            self._input.free()
            self._output.free()
            cuda.call(cuda.runtime_api().cudaStreamDestroy, self._stream)

    def _infer(self, batch: Batch) -> Batch:
        count = len(batch)
        if self._dynamic:
            self._context.set_input_shape(self._input_name, tuple(batch.shape))
        self._input.upload(count, self._stream)
        if not self._context.execute_async_v3(int(self._stream)):
            raise EngineError(f"TensorRT could not run: {'; '.join(self._log.errors[-3:])}")
        self._output.download(count, self._stream)
        cuda.call(cuda.runtime_api().cudaStreamSynchronize, self._stream)
        return self._output.host[:count]

    def _release(self) -> None:
        with exclusive():
            self._context = self._engine = self._runtime = None

    def _logged(self) -> str:
        return "; ".join(self._log.errors) or "no reason given"

    def _load(self, engine: bytes) -> Any:
        with exclusive():
            return self._runtime.deserialize_cuda_engine(engine)

    def _cached(self, api: TensorRTApi, onnx: bytes, key: EngineKey) -> Any:
        cache = EngineCache()
        for _ in range(2):
            engine = self._load(cache.get(key, lambda: build_engine(onnx, api=api)))
            if engine is not None:
                return engine
            cache.discard(key)
        return None


def _names(trt: Any, engine: Any) -> tuple[str, str]:
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    outputs = [name for name in names if name not in inputs]
    if len(inputs) != 1 or len(outputs) != 1:
        raise BundleError(
            f"the engine has {len(inputs)} inputs and {len(outputs)} outputs, expected one each"
        )
    return inputs[0], outputs[0]


def _native(trt: Any, engine: Any, name: str) -> NativeTensor:
    kind = engine.get_tensor_dtype(name)
    if kind not in (trt.float32, trt.float16):
        raise BundleError(f"{name!r} of the engine is {kind}, expected float32 or float16")
    return NativeTensor(
        shape=tuple(None if size < 0 else int(size) for size in engine.get_tensor_shape(name)),
        dtype=np.dtype(np.float32 if kind == trt.float32 else np.float16),
    )


def _buffer(tensor: NativeTensor) -> cuda.Buffer:
    """Return memory for the largest batch; other free sizes are refused by the base."""
    batch, *rest = tensor.shape
    return cuda.Buffer((batch or MAX_BATCH, *(size or 1 for size in rest)), tensor.dtype)
