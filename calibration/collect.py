"""One pass over the images gives the range of every activation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Protocol

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from ..core.errors import CalibrationError
from ..core.ranges import CalibrationMethod, RangeTable
from ..core.values import Logits, Tensor
from .observers import OBSERVERS


class LogitsSink(Protocol):
    """Takes the float model's answer to each image."""

    def __call__(self, logits: Logits) -> None:
        """Take logits of shape (1, classes)."""
        ...


def collect_ranges(
    model: onnx.ModelProto,
    images: Iterable[tuple[str, Tensor]],
    *,
    method: CalibrationMethod,
    seed: int,
    on_logits: LogitsSink | None = None,
) -> RangeTable:
    """Run a graph over images and return the range of each float32 activation.

    A graph with Q/DQ runs as it is written: the ranges are those of the quantized network.

    Images go through one at a time, so that memory does not grow with their number and no image's
    values depend on its neighbours': their order makes no difference to the table.

    Args:
        model: A graph with one float32 input (batch, channels, height, width), types of all its
            values known.
        images: (sha256 of the file, tensor of shape (1, C, H, W)), normalised.
        method: How a range is chosen.
        seed: What chose the images; kept as provenance.
        on_logits: Called with the logits of each image.

    Raises:
        CalibrationError: There is no image, or the graph gives a NaN or an infinity.
    """
    names = activation_names(model)
    session = _session(model, names)
    input_name = session.get_inputs()[0].name
    output = model.graph.output[0].name
    observers = {name: OBSERVERS[method]() for name in [input_name, *names]}
    hashes: list[str] = []
    for digest, tensor in images:
        hashes.append(digest)
        observers[input_name].update(tensor)
        for name, values in zip(names, session.run(names, {input_name: tensor}), strict=True):
            _check_finite(name, values)
            observers[name].update(values)
            if name == output and on_logits is not None:
                on_logits(values)
    if not hashes:
        raise CalibrationError("no image to calibrate with")
    return RangeTable(
        ranges={name: observer.range() for name, observer in observers.items()},
        model_sha256=hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest(),
        data_sha256=hashlib.sha256("".join(sorted(hashes)).encode()).hexdigest(),
        method=method,
        images=len(hashes),
        seed=seed,
    )


def activation_names(model: onnx.ModelProto) -> list[str]:
    """Return the names of all float32 node outputs, in the graph's order.

    What a DequantizeLinear gives needs no range: its pair has its parameters.
    """
    kinds = {
        value.name: value.type.tensor_type.elem_type
        for value in (*model.graph.value_info, *model.graph.output)
    }
    nodes = [node for node in model.graph.node if node.op_type != "DequantizeLinear"]
    outputs = [name for node in nodes for name in node.output if name]
    return [name for name in outputs if kinds.get(name) == onnx.TensorProto.FLOAT]


def _session(model: onnx.ModelProto, names: list[str]) -> ort.InferenceSession:
    observed = onnx.ModelProto()
    observed.CopyFrom(model)
    kept = {output.name for output in observed.graph.output}
    infos = {value.name: value for value in observed.graph.value_info}
    observed.graph.output.extend(infos[name] for name in names if name not in kept)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        # Fused int8 kernels round differently, and take values away that are observed.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(
        observed.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _check_finite(name: str, values: NDArray[np.float32]) -> None:
    # The sum of finite float32 values in float64 is finite: one pass instead of a mask.
    if not np.isfinite(np.sum(values, dtype=np.float64)):
        raise CalibrationError(f"tensor {name!r} holds a NaN or an infinity on a calibration image")
