"""ONNX graphs and engines on an NVIDIA GPU: TensorRT (Jetson, servers) and TensorRT-RTX (PCs)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, cast

import numpy as np

from ..core.errors import BundleError, EngineError
from ..core.files import sha256_bytes
from ..core.preprocess import Preprocess
from ..targets.target import BackendName
from . import cuda
from .backend import Backend, Batch, EngineUse, NativeTensor, Options
from .cuda_graph import CudaGraph
from .engine_cache import EngineCache, EngineKey
from .layer import Layer
from .tensorrt_build import (
    TensorRTApi,
    build_engine,
    exclusive,
    find_module,
    import_api,
    make_logger,
)
from .tensorrt_layers import layers_of
from .timing_cache import TimingCache


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
            if options.built:
                self._engine = self._load(model)
                use = EngineUse(outcome="shipped", size_bytes=len(model))
            else:
                self._engine, use = self._cached(api, model, options, device, trt.__version__)
            if self._engine is None:
                raise EngineError(f"{name} {version} does not take the engine: {self._logged()}")
            with exclusive():
                self._context, own_graphs = _context(trt, self._engine, options.engine.cuda_graph)
            if self._context is None:
                raise EngineError(f"{name} {version} cannot run the engine: {self._logged()}")
        except BaseException:
            self._release()
            raise
        self._input_name, self._output_name = _names(trt, self._engine)
        source = _native(trt, self._engine, self._input_name)
        result = _native(trt, self._engine, self._output_name)
        self._dynamic = source.shape[0] is None
        largest = source.shape[0] or _largest_batch(self._engine, self._input_name)
        self._input = _buffer(source, largest)
        self._output = _buffer(result, largest)
        self._stream = cuda.call(cuda.runtime_api().cudaStreamCreate)
        self._graph = CudaGraph(self._stream)
        self._replays = options.engine.cuda_graph and not own_graphs
        self._shape: tuple[int, ...] = ()
        self._context.set_tensor_address(self._input_name, self._input.device)
        self._context.set_tensor_address(self._output_name, self._output.device)
        super().__init__(name, preprocess, source, result, max_batch=largest,
                         buffer=self._input.host)  # fmt: skip
        self.engine = use
        major, minor = device.compute_capability
        self.description = {
            "library": f"{name} {version}",
            "device": f"{device.name} (compute capability {major}.{minor})",
        }
        if options.calibration is not None:
            self.description["quantized"] = "by TensorRT, from the calibration cache"
        if not self._replays:
            self.description["cuda graph"] = "by the library" if own_graphs else "no"

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
            self._graph.free()
            self._release()
            self._buffer = self._memory(0)
            self._input.free()
            self._output.free()
            cuda.call(cuda.runtime_api().cudaStreamDestroy, self._stream)

    def _infer(self, batch: Batch) -> Batch:
        count = len(batch)
        if self._dynamic and batch.shape != self._shape:
            self._shape = ()
            if not self._context.set_input_shape(self._input_name, tuple(batch.shape)):
                raise EngineError(f"TensorRT refuses the shape {batch.shape}: {self._logged()}")
            self._shape = batch.shape
        if self._replays:
            self._graph.run(count, lambda: self._enqueue(count))
            self._describe_graph()
        else:
            self._enqueue(count)
        cuda.call(cuda.runtime_api().cudaStreamSynchronize, self._stream)
        return self._output.host[:count]

    def _enqueue(self, count: int) -> None:
        self._input.upload(count, self._stream)
        if not self._context.execute_async_v3(int(self._stream)):
            raise EngineError(f"TensorRT could not run: {'; '.join(self._log.errors[-3:])}")
        self._output.download(count, self._stream)

    def _describe_graph(self) -> None:
        if self._graph.refused is not None:
            self.description["cuda graph"] = f"no: {self._graph.refused}"
        elif self._graph.recorded:
            self.description["cuda graph"] = "yes"

    def _release(self) -> None:
        with exclusive():
            self._context = self._engine = self._runtime = None

    def _logged(self) -> str:
        return "; ".join(self._log.errors) or "no reason given"

    def _load(self, engine: bytes) -> Any:
        with exclusive():
            return self._runtime.deserialize_cuda_engine(engine)

    def _cached(
        self, api: TensorRTApi, onnx: bytes, options: Options, device: cuda.Device, version: str
    ) -> tuple[Any, EngineUse]:
        cache = EngineCache()
        calibration = options.calibration
        key = EngineKey(
            gpu=device.name,
            compute_capability=device.compute_capability,
            tensorrt=f"{api} {version}",
            onnx_sha256=sha256_bytes(onnx),
            max_batch=options.engine.max_batch,
            opt_batch=options.engine.opt_batch,
            workspace_mb=options.engine.workspace_mb,
            calibration_sha256=None if calibration is None else sha256_bytes(calibration),
        )
        timings = None
        if api == "tensorrt":  # TensorRT-RTX measures when it loads, and ignores timings since 1.2
            timings = TimingCache(cache.folder, gpu=key.gpu, tensorrt=key.tensorrt,
                                  compute_capability=key.compute_capability)  # fmt: skip

        def build() -> bytes:
            return build_engine(
                onnx, api=api, options=options.engine, calibration=calibration, timings=timings,
                progress=options.progress,
                compute_capability=asked_capability(api, device.compute_capability),
            )  # fmt: skip

        for attempt in range(2):
            kept = cache.get(key, build, options.progress)
            engine = self._load(kept.data)
            if engine is not None or attempt:
                break
            cache.discard(key)
        use = EngineUse(
            outcome="cached" if kept.build_s is None else "built",
            size_bytes=len(kept.data), path=kept.path, build_s=kept.build_s,
        )  # fmt: skip
        return engine, use


def _context(trt: Any, engine: Any, cuda_graph: bool) -> tuple[Any, bool]:
    """Return an engine's context, and whether it records CUDA graphs itself.

    TensorRT-RTX does: it knows when a kernel that it compiled meanwhile makes a recording old.
    """
    if (
        cuda_graph
        and hasattr(trt, "CudaGraphStrategy")
        and hasattr(engine, "create_runtime_config")
    ):
        settings = engine.create_runtime_config()
        if hasattr(settings, "cuda_graph_strategy"):
            settings.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            return engine.create_execution_context(settings), True
    return engine.create_execution_context(), False


def _names(trt: Any, engine: Any) -> tuple[str, str]:
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    outputs = [name for name in names if name not in inputs]
    if len(inputs) != 1 or len(outputs) != 1:
        raise BundleError(
            f"the engine has {len(inputs)} inputs and {len(outputs)} outputs, expected one each"
        )
    return inputs[0], outputs[0]


def asked_capability(api: TensorRTApi, found: tuple[int, int]) -> tuple[int, int] | None:
    """Return the compute capability that an engine must be asked for, to run on this GPU.

    TensorRT-RTX's engines run on all from 8.0 on unless asked for another, so not on Turing's 7.5:
    https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/inference-library/cpu-engines.html
    """
    return found if api == "tensorrt-rtx" and found < (8, 0) else None


def _native(trt: Any, engine: Any, name: str) -> NativeTensor:
    kind = engine.get_tensor_dtype(name)
    if kind not in (trt.float32, trt.float16):
        raise BundleError(f"{name!r} of the engine is {kind}, expected float32 or float16")
    return NativeTensor(
        shape=tuple(None if size < 0 else int(size) for size in engine.get_tensor_shape(name)),
        dtype=np.dtype(np.float32 if kind == trt.float32 else np.float16),
    )


def _largest_batch(engine: Any, name: str) -> int:
    """Return what the engine's optimisation profile allows, whoever built it."""
    _, _, largest = engine.get_tensor_profile_shape(name, 0)
    return int(largest[0])


def _buffer(tensor: NativeTensor, largest: int) -> cuda.Buffer:
    """Return memory for the largest batch; other free sizes are refused by the base."""
    return cuda.Buffer((largest, *(size or 1 for size in tensor.shape[1:])), tensor.dtype)
