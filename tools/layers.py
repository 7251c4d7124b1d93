"""How far LiteRT is from the simulation of a Q/DQ graph, operator by operator.

A difference of one step in an early layer moves everything behind it, in a deep random network
chaotically: the outputs of two honest runtimes then say little. Here each operator of the
simulation is fed the very codes that LiteRT fed its own, so that a difference is that operator's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

import flatbuffers
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from edgecls.export.tflite import TfliteModel

# They move codes and compute none: counting them would only flatter.
MOVING: Final = frozenset(
    {
        "Concat", "DepthToSpace", "Dropout", "Expand", "Flatten", "Gather", "GlobalMaxPool",
        "Identity", "MaxPool", "Pad", "ReduceMax", "ReduceMin", "Reshape", "Slice",
        "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One operator's output in codes.

    Attributes:
        name: The value in the ONNX graph.
        operator: What computes it there.
        steps: How far each code is from the simulation's; int.
    """

    name: str
    operator: str
    steps: NDArray[np.int64]


def compare_layers(
    graph: onnx.ModelProto, lowered: TfliteModel, image: Any, *, moving: bool = False
) -> list[Layer]:
    """Return how far each computing operator is from the simulation's, on the same codes.

    Args:
        graph: The Q/DQ graph that ``lowered`` was made from.
        lowered: Its TFLite file.
        image: (1, C, H, W), float32.
        moving: Compare what only moves codes as well, and each name of a tensor that has several.
    """
    model = ir.from_proto(graph)
    points = _cut(model, lowered.forms)
    known = {name: lowered.forms[name] for name in points}
    tensors = _run_all(lowered, image)
    codes = {name: form.read(tensors[form.tensor]) for name, form in known.items()}
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    feed = {graph.graph.input[0].name: image}
    for source in session.get_inputs():
        if source.name.startswith(_FORCED):
            feed[source.name] = codes[source.name.removeprefix(_FORCED)]
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(names, feed), strict=True))
    layers, seen = [], set()
    for name, form in known.items():
        if not moving and (points[name] in MOVING or form.tensor in seen):
            continue
        seen.add(form.tensor)
        difference = np.abs(found[name].astype(np.int64) - codes[name].astype(np.int64))
        layers.append(Layer(name=name, operator=points[name], steps=difference))
    return layers


_FORCED: Final = "forced/"


def _cut(model: ir.Model, held: Collection[str]) -> dict[str, str]:
    """Cut the graph behind each QuantizeLinear; return what computes each of the ends.

    Values that the file does not hold, only moved on the way to another, are left uncut.
    """
    graph = model.graph
    del graph.outputs[:]
    points = {}
    for node in list(graph):
        codes = node.outputs[0]
        if node.op_type != "QuantizeLinear" or codes.name not in held:
            continue
        source = node.inputs[0]
        producer = source.producer() if source is not None else None
        points[str(codes.name)] = "Identity" if producer is None else producer.op_type
        if codes.uses():
            forced = ir.Value(name=f"{_FORCED}{codes.name}", type=codes.type, shape=codes.shape)
            graph.inputs.append(forced)
            codes.replace_all_uses_with(forced)
        graph.outputs.append(codes)
    return points


def _run_all(lowered: TfliteModel, image: Any) -> Mapping[int, NDArray[Any]]:
    """Return every tensor that LiteRT computes, by its own kernels: each is made an output."""
    model = schema.ModelT.InitFromPackedBuf(lowered.data)
    graph = model.subgraphs[0]
    made = sorted({int(i) for operator in graph.operators for i in operator.outputs})
    graph.outputs = np.asarray(made, np.int32)
    model.signatureDefs = []
    builder = flatbuffers.Builder(len(lowered.data) + 65536)
    builder.Finish(model.Pack(builder), b"TFL3")
    interpreter = Interpreter(model_content=bytes(builder.Output()), num_threads=1)
    interpreter.allocate_tensors()
    (source,) = interpreter.get_input_details()
    data = image.transpose(0, 2, 3, 1)
    if source["dtype"] != np.float32:
        scale, zero_point = source["quantization"]
        limits = np.iinfo(source["dtype"])
        codes = np.rint(data / np.float32(scale)) + zero_point
        data = np.clip(codes, limits.min, limits.max).astype(source["dtype"])
    interpreter.set_tensor(source["index"], data)
    interpreter.invoke()
    found = {index: interpreter.get_tensor(index) for index in made}
    return {**found, source["index"]: data}
