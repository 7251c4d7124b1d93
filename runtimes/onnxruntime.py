"""ONNX graphs: on a CPU as written, which simulates a device, or as fast as it can; or by CUDA."""

from __future__ import annotations

import base64
import functools
import importlib.metadata
import importlib.util
import tempfile
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

import numpy as np

from ..core.errors import BackendUnavailableError, BundleError, MissingPackageError
from ..core.preprocess import Preprocess
from ..core.values import CALIBRATED
from ..targets.target import BackendName
from .backend import Backend, Batch, NativeTensor, Options
from .layer import Layer
from .onnxruntime_layers import layers_of

_DTYPES: Final = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_CUDA: Final = "CUDAExecutionProvider"
_CPU: Final = "CPUExecutionProvider"
# An ONNX graph: MatMulInteger of "a", uint8 (1, 4), by four weights of 127. A test writes it again.
_PRODUCT: Final = (
    "CAU6WAoYCgFhCgFiEgF5Ig1NYXRNdWxJbnRlZ2VyEgFnKg8IBAgBEANCAWJKBH9/f39aEwoBYRIOCgwIAhIICgIIAQoCCAR"
    "iEwoBeRIOCgwIBhIICgIIAQoCCAFCBAoAEAo="
)
# Above it a batch is cut: the activations of a large one would fill a small machine's memory.
_MAX_BATCH: Final = 32


class OnnxRuntimeBackend(Backend):
    """Runs an ONNX graph with one execution provider, and with no other in its place."""

    layout: ClassVar[Literal["NHWC", "NCHW"]] = "NCHW"

    def __init__(
        self, name: BackendName, model: bytes, preprocess: Preprocess, options: Options
    ) -> None:
        """Load a graph.

        Raises:
            MissingError: ONNX Runtime or its CUDA provider is not there.
            BundleError: ONNX Runtime does not take the graph.
        """
        version = self.check(name)
        import onnxruntime

        self._settings = settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 3
        if options.threads is not None:
            settings.intra_op_num_threads = options.threads
        calibrated, dynamic = options.precision in CALIBRATED, options.precision == "int8-dynamic"
        as_written = calibrated and name != "onnxruntime-cpu"
        in_bytes = dynamic or (calibrated and name == "onnxruntime-cpu")
        widened = in_bytes and products_saturate()
        if widened:  # weights become unsigned too: slower, and right
            settings.add_session_config_entry("session.x64quantprecision", "1")
        if dynamic:  # unpack the weights of what computes in float once, not with every image
            settings.add_session_config_entry("session.disable_quant_qdq", "1")
        if as_written:
            # Fused int8 kernels round elsewhere than Q/DQ says.
            settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        providers = [_CUDA, _CPU] if name == "onnxruntime-cuda" else [_CPU]
        try:
            self._session = onnxruntime.InferenceSession(model, settings, providers=providers)
        except Exception as error:  # its exceptions have no common base of their own
            first = str(error).strip().splitlines()[0]
            raise BundleError(f"ONNX Runtime {version} refuses the graph: {first}") from error
        used = self._session.get_providers()
        if name == "onnxruntime-cuda" and _CUDA not in used:
            raise BackendUnavailableError(
                f"ONNX Runtime's CUDA provider does not start on this machine (got {used}); "
                "check the NVIDIA driver, CUDA and cuDNN"
            )
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise BundleError(
                f"the graph has {len(inputs)} inputs and {len(outputs)} outputs, expected one each"
            )
        self._input_name: str = inputs[0].name
        self._outputs: list[str] = [outputs[0].name]
        super().__init__(
            name, preprocess, _native(inputs[0]), _native(outputs[0]), max_batch=_MAX_BATCH
        )
        self.description = {
            "library": f"onnxruntime {version}",
            "provider": used[0],
            "optimised": "no: Q/DQ as written" if as_written else "yes",
        }
        if widened:
            self.description["int8"] = "with unsigned weights, slower: this CPU has no VNNI"

    @classmethod
    def check(cls, name: BackendName) -> str:
        """Return ONNX Runtime's version.

        Raises:
            MissingPackageError: It is not installed.
            BackendUnavailableError: It was built without CUDA, and CUDA was asked for.
        """
        cuda = name == "onnxruntime-cuda"
        if importlib.util.find_spec("onnxruntime") is None:
            package = "onnxruntime-gpu" if cuda else "onnxruntime"
            raise MissingPackageError(package, package)
        import onnxruntime

        if cuda and _CUDA not in onnxruntime.get_available_providers():
            raise BackendUnavailableError(
                "the installed onnxruntime has no CUDA provider; "
                "run: pip uninstall onnxruntime && pip install 'edgecls[onnxruntime-gpu]'"
            )
        return str(onnxruntime.__version__)

    def layers(self, model: bytes) -> tuple[Layer, ...]:
        """Return where each node ran: another session of the same settings profiles one run."""
        import onnxruntime

        with tempfile.TemporaryDirectory() as folder:
            self._settings.enable_profiling = True
            self._settings.profile_file_prefix = str(Path(folder) / "profile")
            session = onnxruntime.InferenceSession(
                model, self._settings, providers=self._session.get_providers()
            )
            session.run(self._outputs, {self._input_name: self._memory(self._fixed_batch or 1)})
            return layers_of(Path(session.end_profiling()), self.description["provider"])

    def _infer(self, batch: Batch) -> Batch:
        found: Batch = self._session.run(self._outputs, {self._input_name: batch})[0]
        return found


@functools.cache
def products_saturate() -> bool:
    """Whether this CPU's kernels lose sums of unsigned times signed bytes, as without VNNI.

    They add two products in 16 bits: on a convolution 21 where 50 was right has been measured.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(
        base64.b64decode(_PRODUCT), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {"a": np.full((1, 4), 255, np.uint8)})
    return bool(found[0, 0] != 4 * 255 * 127)


def _native(argument: Any) -> NativeTensor:
    dtype = _DTYPES.get(argument.type)
    if dtype is None:
        raise BundleError(
            f"{argument.name!r} is {argument.type}, expected one of {', '.join(_DTYPES)}"
        )
    return NativeTensor(
        shape=tuple(size if isinstance(size, int) else None for size in argument.shape),
        dtype=np.dtype(dtype),
    )
