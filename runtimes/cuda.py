"""CUDA memory and streams through cuda-bindings: no torch, no compiler."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import BackendUnavailableError, MissingPackageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A GPU.

    Attributes:
        name: As its driver calls it.
        compute_capability: (major, minor).
    """

    name: str
    compute_capability: tuple[int, int]


def current_device() -> Device:
    """Return the GPU that would run.

    Raises:
        MissingPackageError: cuda-bindings is not installed.
        BackendUnavailableError: There is no driver or no GPU.
    """
    api = runtime_api()
    error, count = api.cudaGetDeviceCount()
    if int(error) or not count:
        reason = _text(api, error) if int(error) else "no GPU"
        raise BackendUnavailableError(
            f"no CUDA GPU can be used ({reason}); install NVIDIA's driver, or run on the device"
        )
    properties = call(api.cudaGetDeviceProperties, 0)
    name = properties.name
    return Device(
        name=name.decode(errors="replace").rstrip("\0") if isinstance(name, bytes) else str(name),
        compute_capability=(int(properties.major), int(properties.minor)),
    )


def runtime_api() -> Any:
    """Return the module of CUDA's runtime functions.

    Raises:
        MissingPackageError: cuda-bindings is not installed.
        BackendUnavailableError: It does not load.
    """
    if importlib.util.find_spec("cuda") is None:
        raise MissingPackageError("cuda-bindings", "tensorrt")
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except ModuleNotFoundError as error:
        raise MissingPackageError("cuda-bindings", "tensorrt") from error
    except (ImportError, RuntimeError) as error:
        raise BackendUnavailableError(
            f"cuda-bindings does not load: {error}; its version must fit the CUDA of this machine"
        ) from error


def call(function: Any, *arguments: Any) -> Any:
    """Call a function of CUDA's runtime and return what it gives beside its error code.

    Raises:
        BackendUnavailableError: CUDA reports an error.
    """
    error, *results = function(*arguments)
    if int(error):
        raise BackendUnavailableError(f"CUDA: {_text(runtime_api(), error)}")
    return results[0] if results else None


def _text(api: Any, error: Any) -> str:
    status, text = api.cudaGetErrorString(error)
    if int(status) or not text:
        return f"error {int(error)}"
    return f"error {int(error)}: {text.decode() if isinstance(text, bytes) else text}"


class Buffer:
    """The same array twice: in pinned memory of the host, and on the GPU.

    Attributes:
        host: The array that Python reads and writes.
        device: The address on the GPU.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Allocate both.

        Raises:
            BackendUnavailableError: There is not enough memory.
        """
        api = runtime_api()
        size_bytes = int(np.prod(shape)) * dtype.itemsize
        self._pinned = call(api.cudaMallocHost, size_bytes)
        self.device: int = int(call(api.cudaMalloc, size_bytes))
        memory = (ctypes.c_uint8 * size_bytes).from_address(int(self._pinned))
        self.host: NDArray[Any] = np.ctypeslib.as_array(memory).view(dtype).reshape(shape)
        self.host.fill(0)

    def upload(self, count: int, stream: Any) -> None:
        """Begin to copy the first ``count`` rows to the GPU."""
        self._copy(self.device, self.host.ctypes.data, count, "cudaMemcpyHostToDevice", stream)

    def download(self, count: int, stream: Any) -> None:
        """Begin to copy the first ``count`` rows from the GPU."""
        self._copy(self.host.ctypes.data, self.device, count, "cudaMemcpyDeviceToHost", stream)

    def free(self) -> None:
        """Give both back; ``host`` must not be used any more."""
        api = runtime_api()
        call(api.cudaFree, self.device)
        call(api.cudaFreeHost, self._pinned)

    def _copy(self, target: int, source: int, count: int, kind: str, stream: Any) -> None:
        api = runtime_api()
        size_bytes = self.host[:count].nbytes
        direction = getattr(api.cudaMemcpyKind, kind)
        call(api.cudaMemcpyAsync, target, source, size_bytes, direction, stream)
