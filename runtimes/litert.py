"""``.tflite`` files on a CPU: LiteRT, tflite-runtime or TensorFlow's own interpreter."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from typing import Any, ClassVar, Final, Literal

import numpy as np

from ..core.errors import BackendUnavailableError, BundleError, MissingPackageError
from ..core.preprocess import Preprocess
from ..targets.target import BackendName
from .backend import Backend, Batch, NativeTensor, Options
from .layer import Layer
from .litert_layers import DELEGATE, layers_of

# Backend: distribution, module that holds Interpreter, extra.
_LIBRARIES: Final[dict[BackendName, tuple[str, str, str]]] = {
    "litert": ("ai-edge-litert", "ai_edge_litert.interpreter", "litert"),
    "tflite-runtime": ("tflite-runtime", "tflite_runtime.interpreter", "tflite-runtime"),
    "tensorflow": ("tensorflow", "tensorflow.lite.python.interpreter", "tensorflow"),
}


class LiteRTBackend(Backend):
    """Runs a ``.tflite`` file; XNNPACK computes where the library brings it."""

    layout: ClassVar[Literal["NHWC", "NCHW"]] = "NHWC"

    def __init__(
        self, name: BackendName, model: bytes, preprocess: Preprocess, options: Options
    ) -> None:
        """Load a file.

        Raises:
            MissingError: The library is not installed or not usable.
            BundleError: The library does not take the file.
        """
        version = self.check(name)
        try:
            interpreter_class = importlib.import_module(_LIBRARIES[name][1]).Interpreter
        except ImportError as error:
            raise BackendUnavailableError(
                f"{name} {version} cannot be imported: {error}; install it again"
            ) from error
        try:
            self._interpreter: Any = interpreter_class(
                model_content=model, num_threads=options.threads
            )
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise BundleError(f"{name} {version} refuses the model: {reason}") from error
        inputs = self._interpreter.get_input_details()
        outputs = self._interpreter.get_output_details()
        if len(inputs) != 1 or len(outputs) != 1:
            raise BundleError(
                f"the model has {len(inputs)} inputs and {len(outputs)} outputs, expected one each"
            )
        self._input_index: int = inputs[0]["index"]
        self._output_index: int = outputs[0]["index"]
        super().__init__(name, preprocess, _native(inputs[0]), _native(outputs[0]))
        delegated = self._delegated()
        self.description = {
            "library": f"{_LIBRARIES[name][0]} {version}",
            "xnnpack": "yes" if delegated else "no: slower kernels",
            "threads": str(options.threads or 1),
        }
        # 16x8 has reference kernels only.
        if name == "litert" and not delegated and options.precision != "int16x8":
            self.problem = (
                "XNNPACK did not load, LiteRT computes with slower kernels: it reads "
                "/proc/cpuinfo and /sys/devices/system/cpu, which a container or a chroot must have"
            )

    @classmethod
    def check(cls, name: BackendName) -> str:
        """Return the library's version, found without importing it.

        Raises:
            MissingPackageError: It is not installed.
            BackendUnavailableError: It does not work with the numpy that is installed.
        """
        distribution, module, extra = _LIBRARIES[name]
        if importlib.util.find_spec(module.split(".")[0]) is None:
            raise MissingPackageError(distribution, extra)
        if name == "tflite-runtime" and int(np.__version__.split(".")[0]) >= 2:
            # It was built against numpy 1 and fails, with an unrelated text, on the first model.
            raise BackendUnavailableError(
                f"tflite-runtime needs numpy below 2, found {np.__version__}; "
                "run: pip install 'edgecls[litert]' instead"
            )
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            return "of unknown version"  # TensorFlow goes by several names (tensorflow-cpu, ...)

    def layers(self, model: bytes) -> tuple[Layer, ...]:  # noqa: ARG002 - this one loaded it
        """Return where each layer runs."""
        return layers_of(self._interpreter)

    def _infer(self, batch: Batch) -> Batch:
        self._interpreter.set_tensor(self._input_index, batch)
        try:
            self._interpreter.invoke()
        except RuntimeError as error:
            raise BundleError(f"{self.name} cannot run the model: {error}") from error
        found: Batch = self._interpreter.get_tensor(self._output_index)
        return found

    def _delegated(self) -> bool:
        """Whether a delegate took part of the graph: without one, nothing tells but the time."""
        operators = self._interpreter._get_ops_details()
        return any(operator["op_name"] == DELEGATE for operator in operators)


def _native(details: dict[str, Any]) -> NativeTensor:
    scale, zero_point = details["quantization"]
    return NativeTensor(
        shape=tuple(int(size) for size in details["shape"]),
        dtype=np.dtype(details["dtype"]),
        scale=float(scale),
        zero_point=int(zero_point),
    )
