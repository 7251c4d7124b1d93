"""Small ONNX graphs, a plain Q/DQ placement of our own, and the two runtimes side by side."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgecls.core.values import relative_difference
from edgecls.export.tflite import TfliteModel, lower

# Per operator, what TFLite asks of an int8 output; of an int16 one it is 1/32768 and 0.
FIXED = {"Sigmoid": (1 / 256, -128), "Softmax": (1 / 256, -128), "Tanh": (1 / 128, 0)}
SAME = {
    "AveragePool", "DepthToSpace", "Expand", "Flatten", "Gather", "MaxPool", "Pad", "ReduceMax",
    "Reshape",
    "Resize", "Slice", "SpaceToDepth", "Split", "Squeeze", "Transpose", "Unsqueeze",
}  # fmt: skip
WEIGHTED = {"Conv": 0, "Gemm": 0, "MatMul": 1}
FUSING = {*WEIGHTED, "Add", "Sub", "Mul"}
NAMES = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}


@dataclass(frozen=True)
class Lab:
    """What the tests do with graphs."""

    @property
    def rng(self) -> np.random.Generator:
        """The same numbers at every use, so that a failure can be repeated."""
        return np.random.default_rng(0)

    def graph(
        self,
        nodes: Sequence[onnx.NodeProto],
        shape: Sequence[int | str],
        constants: Mapping[str, Any] | None = None,
        *,
        output: str = "y",
        opset: int = 20,
    ) -> onnx.ModelProto:
        """Return a checked model from input "x" of ``shape`` to ``output``."""
        for index, node in enumerate(nodes):
            node.name = node.name or f"{node.op_type}_{index}"
        made = helper.make_graph(
            nodes,
            "test",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None)],
            [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()],
        )
        model = helper.make_model(
            made, opset_imports=[helper.make_opsetid("", opset)], ir_version=10
        )
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
        onnx.checker.check_model(model)
        return model

    def one(
        self, op: str, shape: Sequence[int], constants: Sequence[Any] = (), **attributes: Any
    ) -> onnx.ModelProto:
        """Return a graph of one operator; a None among the constants leaves an input out."""
        names = [f"c{i}" if c is not None else "" for i, c in enumerate(constants)]
        node = helper.make_node(op, ["x", *names], ["y"], **attributes)
        given = {n: c for n, c in zip(names, constants, strict=True) if c is not None}
        return self.graph([node], shape, given)

    def data(self, model: onnx.ModelProto, count: int = 3) -> NDArray[np.float32]:
        """Return ``count`` random inputs, each without its batch axis."""
        shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim][1:]
        return self.rng.standard_normal((count, *shape)).astype(np.float32)

    def onnx(
        self,
        model: onnx.ModelProto,
        inputs: NDArray[np.float32],
        outputs: Sequence[str] = (),
        *,
        optimised: bool = False,
    ) -> list[NDArray[Any]]:
        """Return what ONNX Runtime computes, one input at a time, by default nothing optimised."""
        options = onnxruntime.SessionOptions()
        if not optimised:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        names = list(outputs) or [session.get_outputs()[0].name]
        source = session.get_inputs()[0].name
        found = [session.run(names, {source: image[None]}) for image in inputs]
        return [np.concatenate(batch) for batch in zip(*found, strict=True)]

    def tflite(self, model: TfliteModel, inputs: NDArray[np.float32]) -> NDArray[Any]:
        """Return what LiteRT computes, in the output's own type; inputs are quantized for it."""
        interpreter = Interpreter(model_content=model.data, num_threads=1)
        interpreter.allocate_tensors()
        (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
        assert tuple(source["shape"]) == model.input.shape
        assert np.dtype(source["dtype"]).name == model.input.dtype
        assert tuple(result["shape"]) == model.output.shape
        assert np.dtype(result["dtype"]).name == model.output.dtype
        found = []
        for image in inputs:
            batch = image[None]
            batch = batch.transpose(0, 2, 3, 1) if batch.ndim == 4 else batch
            if source["dtype"] != np.float32:
                batch = codes(batch, *source["quantization"], source["dtype"])
            interpreter.set_tensor(source["index"], batch)
            interpreter.invoke()
            found.append(interpreter.get_tensor(result["index"]).copy())
        return np.concatenate(found)

    def output_params(self, model: TfliteModel) -> tuple[float, int]:
        """Return the scale and zero point of a quantized output."""
        _, graph = subgraph(model)
        quantization = graph.tensors[graph.outputs[0]].quantization
        return float(quantization.scale[0]), int(quantization.zeroPoint[0])

    def steps(
        self, model: onnx.ModelProto, lowered: TfliteModel, inputs: NDArray[np.float32]
    ) -> NDArray[np.int64]:
        """Return how far the file is from ONNX Runtime on a Q/DQ graph, in steps of the output."""
        (expected,) = self.onnx(model, inputs)
        found = self.tflite(lowered, inputs)
        wanted = codes(expected, *self.output_params(lowered), found.dtype)
        return np.abs(wanted.astype(int) - found.astype(int))

    def steps_of_optimised(
        self, model: onnx.ModelProto, lowered: TfliteModel, inputs: NDArray[np.float32]
    ) -> NDArray[np.int64]:
        """Return how far ONNX Runtime's fused kernels are from its plain ones."""
        params = self.output_params(lowered)
        plain, fused = (
            codes(self.onnx(model, inputs, optimised=on)[0], *params).astype(int)
            for on in (False, True)
        )
        return np.abs(plain - fused)

    def float_check(
        self, model: onnx.ModelProto, *, limit: float = 1e-5, transposes: int = 0
    ) -> TfliteModel:
        """Lower a float graph and hold it against ONNX Runtime."""
        inputs = self.data(model)
        lowered = lower(model)
        (expected,) = self.onnx(model, inputs)
        found = self.tflite(lowered, inputs)

        assert relative_difference(expected, found) <= limit
        assert lowered.left_float == ()
        assert lowered.quantized == 0
        self._transposes(lowered, transposes)
        return lowered

    def int8_check(
        self,
        model: onnx.ModelProto,
        *,
        steps: int = 1,
        transposes: int = 0,
        left_float: int = 0,
        within_1: float = 1.0,
    ) -> TfliteModel:
        """Lower a Q/DQ graph and hold it against ONNX Runtime, in steps of the output."""
        lowered = lower(model)
        difference = self.steps(model, lowered, self.data(model))

        assert difference.max() <= steps
        assert (difference <= 1).mean() >= within_1
        assert len(lowered.left_float) == left_float
        self._transposes(lowered, transposes)
        return lowered

    def _transposes(self, lowered: TfliteModel, expected: int) -> None:
        # An image as output is given back as NCHW, which no classifier has.
        assert lowered.transposes in {expected, expected + (len(lowered.output.shape) == 4)}

    def both(self, model: onnx.ModelProto, **expected: Any) -> tuple[TfliteModel, TfliteModel]:
        """Check a float graph and its quantized form."""
        transposes = expected.get("transposes", 0)
        return (
            self.float_check(model, transposes=transposes),
            self.int8_check(self.quantize(model), **expected),
        )

    def quantize(
        self,
        model: onnx.ModelProto,
        *,
        skip: Sequence[str] = (),
        unsigned: bool = False,
        per_tensor: bool = False,
        bits: int = 8,
    ) -> onnx.ModelProto:
        """Return the graph with Q/DQ on every activation, weights symmetric per channel.

        Args:
            model: A float graph.
            skip: Values that stay float.
            unsigned: Activations as uint8.
            per_tensor: One scale for a whole weight.
            bits: 8, or 16 for symmetric activations and opset 21.
        """
        return _Quantizer(self, model, set(skip), unsigned, per_tensor, bits).run()


def codes(
    values: NDArray[Any], scale: float, zero_point: int, dtype: Any = np.int8
) -> NDArray[Any]:
    limits = np.iinfo(dtype)
    found = np.rint(values / np.float32(scale)) + zero_point
    return np.clip(found, limits.min, limits.max).astype(dtype)


def subgraph(model: TfliteModel) -> tuple[Any, Any]:
    parsed = schema.ModelT.InitFromPackedBuf(model.data)
    return parsed, parsed.subgraphs[0]


class _Quantizer:
    def __init__(
        self, lab: Lab, model: onnx.ModelProto, skip: set[str], unsigned: bool, per_tensor: bool,
        bits: int,
    ) -> None:  # fmt: skip
        self.bits, self.dtype = bits, np.dtype(f"{'u' * unsigned}int{bits}")
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self.skip, self.unsigned, self.per_tensor = skip, unsigned, per_tensor
        self.graph = self.model.graph
        self.constants = {t.name: numpy_helper.to_array(t) for t in self.graph.initializer}
        self.users = Counter(name for node in self.graph.node for name in node.input)
        self.ranges = self._ranges(lab, model)
        self.params: dict[str, tuple[float, int]] = {}

    def _ranges(self, lab: Lab, model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
        names = [n for node in model.graph.node for n in node.output if n]
        watched = onnx.ModelProto()
        watched.CopyFrom(model)
        del watched.graph.output[:]
        watched.graph.output.extend(
            helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in names
        )
        inputs = lab.data(model)
        return {"x": inputs, **dict(zip(names, lab.onnx(watched, inputs, names), strict=True))}

    def run(self) -> onnx.ModelProto:
        nodes, rename = [], {}
        fused = self._fused()

        def pair(name: str, node: onnx.NodeProto | None) -> None:
            scale, zero_point = self._params(name, node)
            zero_point += self.unsigned << (self.bits - 1)
            self._add(f"{name}_s", np.float32(scale))
            self._add(f"{name}_z", np.asarray(zero_point, self.dtype))
            parameters = [f"{name}_s", f"{name}_z"]
            nodes.append(helper.make_node("QuantizeLinear", [name, *parameters], [f"{name}_q"]))
            nodes.append(
                helper.make_node("DequantizeLinear", [f"{name}_q", *parameters], [f"{name}_dq"])
            )
            rename[name] = f"{name}_dq"

        if "x" not in self.skip:
            pair("x", None)
        for node in list(self.graph.node):
            original = onnx.NodeProto()
            original.CopyFrom(node)
            for index, name in enumerate(node.input):
                node.input[index] = rename.get(name, name)
            if node.op_type in WEIGHTED and node.input[1] in self.constants:
                nodes.append(self._weight(node))
            nodes.append(node)
            for name in node.output:
                if name and name not in fused and name not in self.skip:
                    pair(name, original)
        for index, node in enumerate(nodes):
            node.name = node.name or f"{node.op_type}_{index}"
        del self.graph.node[:]
        self.graph.node.extend(nodes)
        output = self.graph.output[0]
        output.name = rename.get(output.name, output.name)
        if self.bits == 16:
            self.model.opset_import[0].version = 21
        onnx.checker.check_model(self.model)
        return self.model

    def _fused(self) -> set[str]:
        found = set()
        by_input = {name: node for node in self.graph.node for name in node.input}
        for node in self.graph.node:
            name = node.output[0]
            after = by_input.get(name)
            if after is None or self.users[name] != 1 or node.op_type not in FUSING:
                continue
            bias = node.op_type == "MatMul" and after.op_type == "Add"
            if after.op_type == "Relu" or bias or self._is_relu6(after):
                found.add(name)
        return found

    def _is_relu6(self, node: onnx.NodeProto) -> bool:
        if node.op_type != "Clip":
            return False
        return [float(self.constants[n]) for n in node.input[1:3] if n] == [0.0, 6.0]

    def _params(self, name: str, node: onnx.NodeProto | None) -> tuple[float, int]:
        if node is not None and node.op_type in SAME and node.input[0] in self.params:
            self.params[name] = self.params[node.input[0]]
        elif node is not None and node.op_type in FIXED:
            self.params[name] = FIXED[node.op_type] if self.bits == 8 else (1 / 32768, 0)
        elif self.bits == 16:
            scale = float(np.float32(np.abs(self.ranges[name]).max() / 32767)) or 1.0
            self.params[name] = (scale, 0)
        else:
            values = self.ranges[name]
            low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
            scale = float(np.float32((high - low) / 255)) or 1.0
            self.params[name] = (scale, int(np.clip(round(-128 - low / scale), -128, 127)))
        return self.params[name]

    def _weight(self, node: onnx.NodeProto) -> onnx.NodeProto:
        name, axis = node.input[1], WEIGHTED[node.op_type]
        if node.op_type == "Gemm" and not any(a.name == "transB" and a.i for a in node.attribute):
            axis = 1
        weight = self.constants[name]
        rest = tuple(i for i in range(weight.ndim) if i != axis)
        largest = np.abs(weight).max(axis=None if self.per_tensor else rest)
        scales = np.maximum(largest / 127, 1e-9).astype(np.float32)
        shape = [1] * weight.ndim
        shape[axis] = -1
        stretched = scales if self.per_tensor else scales.reshape(shape)
        self._add(f"{name}_q", np.rint(weight / stretched).astype(np.int8))
        self._add(f"{name}_s", scales)
        self._add(f"{name}_z", np.zeros(scales.shape, np.int8))
        inputs = [f"{name}_{end}" for end in "qsz"]
        node.input[1] = f"{name}_dq"
        attributes = {} if self.per_tensor else {"axis": axis}
        return helper.make_node("DequantizeLinear", inputs, [f"{name}_dq"], **attributes)

    def _add(self, name: str, array: Any) -> None:
        if name not in self.constants:
            self.constants[name] = np.asarray(array)
            self.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))


@pytest.fixture(scope="session")
def lab() -> Lab:
    return Lab()


@pytest.fixture(scope="session")
def operators() -> Callable[[TfliteModel], Counter[str]]:
    """Return a function that counts the operators of a file by name."""

    def count(model: TfliteModel) -> Counter[str]:
        parsed, graph = subgraph(model)
        kinds = [NAMES[code.builtinCode] for code in parsed.operatorCodes]
        return Counter(kinds[operator.opcodeIndex] for operator in graph.operators)

    return count


@pytest.fixture(scope="session")
def compare_layers() -> Callable[..., list[Any]]:
    """Return ``tools/layers.py``'s function; the tools are no package."""
    spec = importlib.util.spec_from_file_location(
        "layers", Path(__file__).parents[3] / "tools" / "layers.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules["layers"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module.compare_layers
