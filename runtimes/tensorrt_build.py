"""ONNX to a TensorRT engine, strongly typed: what the graph says is what runs."""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import threading
import traceback
from collections.abc import Iterator
from typing import Any, Final, Literal

from ..core.errors import (
    BackendUnavailableError,
    GraphError,
    MissingError,
    MissingPackageError,
    UsageError,
)
from ..core.progress import Gauge, Quiet
from .cuda import current_device
from .engine_options import DEFAULT, EngineOptions
from .tensorrt_int8 import quantize_implicitly
from .tensorrt_progress import interrupts, make_monitor
from .timing_cache import TimingCache

TensorRTApi = Literal["tensorrt", "tensorrt-rtx"]

# The front package loads the bindings that fit the CUDA; the bindings alone do as well.
_MODULES: Final[dict[TensorRTApi, tuple[str, ...]]] = {
    "tensorrt": ("tensorrt",),
    "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}

_MAX_ERRORS: Final = 5

_ONE_AT_A_TIME: Final = threading.RLock()


@contextlib.contextmanager
def exclusive() -> Iterator[None]:
    """Let nothing else make or destroy one of TensorRT's objects meanwhile.

    TensorRT calls its logger while it holds a lock that destroying a builder takes too: a builder
    that is collected inside the logger, or destroyed by another thread that holds Python's lock,
    stops the process for good. So its objects are made and destroyed here alone, also those that
    an error's traceback would keep, and the garbage collector waits.
    """
    with _ONE_AT_A_TIME:
        collects = gc.isenabled()
        gc.disable()
        try:
            yield
        except BaseException as error:
            traceback.clear_frames(error.__traceback__)
            raise
        finally:
            if collects:
                gc.enable()


def find_module(api: TensorRTApi) -> str:
    """Return the name of the installed module, without importing it.

    Raises:
        MissingError: It is not installed.
    """
    for module in _MODULES[api]:
        if importlib.util.find_spec(module) is not None:
            return module
    if api == "tensorrt-rtx":
        raise MissingPackageError("tensorrt_rtx_cu12_bindings", "tensorrt-rtx")
    raise MissingError(
        "TensorRT is not installed for this Python; on a Jetson it comes with JetPack for the "
        "system's Python: make the environment with 'python3 -m venv --system-site-packages'"
    )


def import_api(api: TensorRTApi) -> Any:
    """Import TensorRT or TensorRT-RTX.

    Raises:
        MissingError: It is not installed, does not load, or is too old.
    """
    module = find_module(api)
    try:
        loaded = importlib.import_module(module)
    except (ImportError, OSError, RuntimeError) as error:
        raise BackendUnavailableError(
            f"{module} does not load: {error}; install it again"
        ) from error
    if not hasattr(loaded.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        raise BackendUnavailableError(
            f"{module} {loaded.__version__} is too old: expected TensorRT 10.3 or later (JetPack 6)"
        )
    return loaded


def tensorrt_rtx_available() -> str | None:
    """Return the version of TensorRT-RTX, which builds without a GPU; None where it is absent."""
    try:
        return str(import_api("tensorrt-rtx").__version__)
    except MissingError:
        return None


def build_engine(
    onnx: bytes,
    *,
    api: TensorRTApi,
    options: EngineOptions = DEFAULT,
    calibration: bytes | None = None,
    timings: TimingCache | None = None,
    progress: Gauge | None = None,
    compute_capability: tuple[int, int] | None = None,
) -> bytes:
    """Build the engine of a graph; a free batch becomes 1 to ``max_batch``.

    TensorRT-RTX needs no GPU: its engine is finished on the GPU that loads it. TensorRT builds for
    the GPU of this machine, in minutes.

    Args:
        onnx: The graph. Its types are kept: INT8 is what stands between Q and DQ.
        api: Which of the two.
        options: The batches and the workspace.
        calibration: A calibration cache: the graph's types are TensorRT's to choose, INT8 by these
            scales.
        timings: Of earlier builds on this GPU; those of this one are added.
        progress: Shows how far it is, and takes notices.
        compute_capability: (major, minor) of the GPU that the engine is for, where it is not this
            machine's; TensorRT-RTX alone can.

    Raises:
        GraphError: The graph is not taken; the message names the nodes.
        MissingError: TensorRT is not there, lacks what was asked for, or needs a GPU that is not
            there.
        UsageError: It cannot build for that compute capability.
    """
    if api == "tensorrt":
        if compute_capability is not None:
            raise UsageError(
                "TensorRT builds for the GPU of its own machine alone; --compute-capability is for "
                "--backend tensorrt-rtx"
            )
        current_device()  # TensorRT would end the process where there is no driver
    trt = import_api(api)
    title = f"{find_module(api)} {trt.__version__}"
    gauge = progress or Quiet()
    with exclusive():
        return _build(trt, title, onnx, options, calibration, timings, compute_capability, gauge)


def _build(
    trt: Any,
    title: str,
    onnx: bytes,
    options: EngineOptions,
    calibration: bytes | None,
    timings: TimingCache | None,
    compute_capability: tuple[int, int] | None,
    progress: Gauge,
) -> bytes:
    log = make_logger(trt)
    builder = trt.Builder(log)
    flag = trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    network = builder.create_network(1 << int(flag) if calibration is None else 0)
    parser = trt.OnnxParser(network, log)
    parsed = parser.parse(onnx)
    if not parsed or parser.num_errors:
        raise GraphError(f"{title} does not parse the graph: {_errors(parser, log)}")
    if not network.num_outputs:  # it parses nothing as a graph of nothing
        raise GraphError(f"{title}: the graph has no outputs; is it an ONNX file?")
    config = builder.create_builder_config()
    # What runs can then be asked where and in which precision it does.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    profile = _add_profile(builder, config, network, options)
    if options.workspace_mb is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
    if compute_capability is not None:
        _set_compute_capability(trt, config, title, compute_capability)
    calibrator = None
    if calibration is not None:
        calibrator = quantize_implicitly(trt, config, profile, calibration, title)
    cache = None if timings is None else _use_timings(config, timings, progress)
    monitor = make_monitor(trt, f"building an engine ({title})", progress)
    config.progress_monitor = monitor
    with interrupts(monitor.stop):
        try:
            built = builder.build_serialized_network(network, config)
        finally:
            monitor.close()
    if calibrator is not None and calibrator.asked:
        raise GraphError(f"{title} does not take the bundle's calibration cache: {_logged(log)}")
    if built is None:
        raise GraphError(f"{title} does not build the graph: {_logged(log)}")
    if timings is not None and cache is not None:
        timings.write(bytes(cache.serialize()), progress)
    return bytes(built)


def _use_timings(config: Any, timings: TimingCache, progress: Gauge) -> Any:
    """Return the timing cache that the build reads and fills."""
    known = timings.read(progress)
    cache = config.create_timing_cache(known)
    # Without "ignore_mismatch": timings of another device would choose the wrong kernels.
    if cache is not None and config.set_timing_cache(cache, False):
        return cache
    if known:
        progress.note(f"TensorRT does not take the timing cache {timings.path}: it is made anew")
    cache = config.create_timing_cache(b"")
    config.set_timing_cache(cache, False)
    return cache


def _set_compute_capability(
    trt: Any, config: Any, title: str, compute_capability: tuple[int, int]
) -> None:
    major, minor = compute_capability
    if not (
        hasattr(trt, "ComputeCapability")
        and hasattr(config, "num_compute_capabilities")
        and hasattr(config, "set_compute_capability")
    ):
        raise UsageError(f"{title} builds for the GPU of its own machine alone")
    known = {name: value for name, value in vars(trt.ComputeCapability).items() if "SM" in name}
    wanted = known.get(f"SM{major}{minor}")
    if wanted is None:
        there = sorted((int(name[2:-1]), int(name[-1])) for name in known)
        raise UsageError(
            f"{title} does not build for compute capability {major}.{minor}; it does for "
            + ", ".join(f"{one}.{other}" for one, other in there)
        )
    config.num_compute_capabilities = 1
    config.set_compute_capability(wanted, 0)


def make_logger(trt: Any) -> Any:
    """Return a logger that keeps errors in ``errors`` where TensorRT's own prints them."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(message.strip())

    return Log()


def _add_profile(builder: Any, config: Any, network: Any, options: EngineOptions) -> Any:
    """Return the profile of a graph whose batch is free; None where every shape is fixed."""
    source = network.get_input(0)
    shape = tuple(source.shape)
    if -1 not in shape:
        return None
    if -1 in shape[1:]:
        raise GraphError(f"input {source.name!r} has shape {shape}: only the batch may be free")
    profile = builder.create_optimization_profile()
    least, best, most = ((batch, *shape[1:]) for batch in (1, options.opt_batch, options.max_batch))
    profile.set_shape(source.name, least, best, most)
    config.add_optimization_profile(profile)
    return profile


def _errors(parser: Any, log: Any) -> str:
    found = []
    for index in range(min(parser.num_errors, _MAX_ERRORS)):
        error = parser.get_error(index)
        operator = error.node_operator() if hasattr(error, "node_operator") else "operator unknown"
        name = error.node_name() if hasattr(error, "node_name") else ""
        # The text of an unsupported node may be just "false": the node says more.
        found.append(f"node {error.node()} ({operator} {name!r}): {error.desc()}")
    more = parser.num_errors - len(found)
    return "; ".join(found) + (f"; and {more} more" if more > 0 else "") or _logged(log)


def _logged(log: Any) -> str:
    return "; ".join(log.errors[:_MAX_ERRORS]) or "no reason given"
