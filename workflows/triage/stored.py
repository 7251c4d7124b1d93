"""The scales and weights that a file holds, and where two files of one model differ in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray
from onnx import numpy_helper

from ...core.errors import BundleError
from ...core.files import sha256_bytes
from ...core.values import ArtefactFormat

# Calibrations on different images of one kind give scales that differ by some percent.
_FACTOR: Final = 2.0
_QDQ: Final = frozenset({"QuantizeLinear", "DequantizeLinear"})
_WEIGHTS: Final = frozenset(
    {schema.TensorType.INT8, schema.TensorType.FLOAT32, schema.TensorType.FLOAT16}
)
_NAMED: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A tensor of a file.

    Attributes:
        scales: Units per code, shape (1,) or (channels,); empty where it is float.
        zero_points: Likewise.
        weights: The hash of its bytes where it is a constant that is no bias; else "".
    """

    scales: NDArray[np.float32]
    zero_points: NDArray[np.int64]
    weights: str = ""


def read_stored(data: bytes, form: ArtefactFormat) -> dict[str, Stored]:
    """Return what a file holds, by the names of its tensors (TFLite) or its Q/DQ nodes (ONNX)."""
    return _from_tflite(data) if form == "tflite" else _from_onnx(data)


def differing(
    planned: Mapping[str, Stored], found: Mapping[str, Stored], *, exact: bool, same_graph: bool
) -> tuple[str, str]:
    """Return in what a file differs from its plan, for humans: what was expected and found.

    Args:
        planned: What the reference gives today.
        found: What the candidate ships.
        exact: Whether the plan has the candidate's own ranges; else they were measured for the
            occasion, and only factors of two and more say anything.
        same_graph: Whether the candidate says that it was made from the same float graph.
    """
    if planned.keys() != found.keys() or any(
        planned[name].scales.shape != found[name].scales.shape for name in planned
    ):
        return (
            "the tensors that the reference gives",
            "others: made from another graph, or by another version",
        )
    ratios = {name: _ratio(planned[name].scales, found[name].scales) for name in planned}
    limit = 1.001 if exact else _FACTOR
    wrong = [name for name, ratio in ratios.items() if max(ratio, 1 / ratio) > limit]
    weights = [name for name, item in planned.items() if item.weights != found[name].weights]
    expected, said = [], []
    if wrong:
        wrong.sort(key=lambda name: -abs(np.log(ratios[name])))
        for name in wrong[:_NAMED]:
            expected.append(f"{name} with scale {_largest(planned[name]):.3g}")
            said.append(f"{_largest(found[name]):.3g} ({ratios[name]:.3g} times)")
        if len(wrong) > _NAMED:
            said.append(f"and {len(wrong) - _NAMED} more")
    if weights and not same_graph:
        expected.append("the reference's weights")
        said.append(f"others in {len(weights)} tensors: made from another model")
    elif weights:
        expected.append("the reference's weights")
        said.append(f"others in {', '.join(weights[:_NAMED])}")
    if not expected:
        largest = max((max(r, 1 / r) for r in ratios.values()), default=1.0)
        return (
            "calibrated on these images",
            f"on others: scales differ by {100 * (largest - 1):.0f} % at most",
        )
    return "; ".join(expected), "; ".join(said)


def _ratio(planned: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """Return how many times larger a scale is: of several, the one that is furthest off."""
    if not planned.size:
        return 1.0
    logarithms = np.log(found.astype(np.float64)) - np.log(planned.astype(np.float64))
    return float(np.exp(logarithms[np.abs(logarithms).argmax()]))


def _largest(stored: Stored) -> float:
    return float(stored.scales.max())


def _from_tflite(data: bytes) -> dict[str, Stored]:
    model = schema.ModelT.InitFromPackedBuf(data)
    found = {}
    for tensor in model.subgraphs[0].tensors:
        quantization, content = tensor.quantization, model.buffers[tensor.buffer].data
        has_scale = quantization is not None and quantization.scale is not None
        is_weight = content is not None and tensor.type in _WEIGHTS
        found[_text(tensor.name)] = Stored(
            scales=np.asarray(quantization.scale if has_scale else [], np.float32),
            zero_points=np.asarray(quantization.zeroPoint if has_scale else [], np.int64),
            weights=sha256_bytes(np.asarray(content).tobytes()) if is_weight else "",
        )
    return found


def _from_onnx(data: bytes) -> dict[str, Stored]:
    graph = onnx.ModelProto.FromString(data).graph
    constants = {item.name: item for item in graph.initializer}
    found = {}
    for node in graph.node:
        if node.op_type not in _QDQ or node.input[1] not in constants:
            continue
        scale = numpy_helper.to_array(constants[node.input[1]]).astype(np.float32)
        zero = np.zeros(scale.shape, np.int64)
        if len(node.input) > 2 and node.input[2] in constants:
            zero = numpy_helper.to_array(constants[node.input[2]]).astype(np.int64)
        codes = constants.get(node.input[0])
        if codes is not None and codes.data_type == onnx.TensorProto.INT32:
            codes = None  # a bias: its codes follow from the scales of what is multiplied
        found[node.name] = Stored(
            scales=scale.ravel(),
            zero_points=zero.ravel(),
            weights=sha256_bytes(numpy_helper.to_array(codes).tobytes()) if codes else "",
        )
    if not found and not constants:
        raise BundleError("expected an ONNX graph with weights, found none")
    return found


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)
