"""ONNX's own test cases for single operators, each lowered and run in LiteRT.

Taken are all cases of every operator that the lowering claims whose first input is float32. It
becomes the input of the graph, every other input a constant; where the operator computes with two
values, the case also runs with all of them computed. Each float32 or 8-bit output is a graph of
its own.
"""

from __future__ import annotations

import fnmatch
import warnings
from dataclasses import dataclass

import numpy as np
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter
from onnx import helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases

from edgecls.core.errors import GraphError
from edgecls.export.tflite import lower
from edgecls.export.tflite.ops import LOWERINGS

# Operators on values of equal standing; the further inputs of the others are parameters.
JOINING = {"Add", "Concat", "Div", "MatMul", "Max", "Min", "Mul", "Pow", "Sub"}

# What is refused: the cases, and what the refusal must say. A case that has come to pass fails.
REFUSED = {
    # No TFLite operator does it.
    "*pool_3d_*": "its window has 3 axes",
    "*pool_2d_dilations": "its dilations are",
    "resize_tf_crop_and_resize*": "tf_crop_and_resize",
    "resize_downsample_sizes_linear_pytorch_half_pixel": r"it makes \(1, 1, 3, 1\)",
    "resize_downsample_sizes_linear_antialias": "its mode is linear",
    "resize_downsample_scales_cubic*": "give no whole sizes",
    "resize_*cubic*": "its mode is cubic",
    "resize_downsample_scales_*": "give no whole sizes",
    "resize_upsample_scales_linear_half_pixel_symmetric": "give no whole sizes",
    "resize_downsample_sizes_nearest*": "its mode is nearest",
    "resize_upsample_sizes_nearest": "its mode is nearest",
    "resize_upsample_sizes_nearest_[!n]*": "its mode is nearest",
    "resize_upsample_sizes_nearest_not_larger": "its mode is nearest",
    # A composition would do it; no classifier has asked for it.
    "gemm_default_matrix_bias": "its bias has shape",
    # Of no use in a classifier at inference.
    "training_dropout_default*": "its training mode is on",
    "training_dropout": "its training mode is on",
    "training_dropout_mask": "its training mode is on",
    "batchnorm_*_training_mode*": "its training mode is on",
    "layer_normalization_*-[12]": r"its output '\w+' is used",
    # Activations have one scale; the axis is the weights'.
    "quantizelinear_axis": "not one constant",
    "quantizelinear_blocked_asymmetric": "not one constant",
    # Kernels that quantize as they run keep the codes to themselves.
    "dynamicquantizelinear*": "its codes are read by others",
    # Nothing to compute with.
    "*_empty_set*": "to hold numbers",
    "reshape_allowzero_reordered": "to hold numbers",
    "split_zero_size_splits*": "to hold numbers",
    "slice_start_out_of_bounds": "to hold numbers",
}


@dataclass(frozen=True)
class Run:
    """A case, one of its outputs, and whether all its inputs are computed."""

    case: object
    output: int
    computed: bool

    @property
    def name(self):
        ending = f"-{self.output}" if self.output else ""
        return self.case.name.removeprefix("test_") + ending + "-computed" * self.computed

    @property
    def refusal(self):
        for pattern, reason in REFUSED.items():
            if fnmatch.fnmatchcase(self.name, pattern):
                return reason
        return None

    def graph(self):
        """Return the model and the array that it is fed with."""
        graph = self.case.model.graph
        values = dict(zip((v.name for v in graph.input), self.case.data_sets[0][0], strict=True))
        fed = list(values) if self.computed else list(values)[:1]
        constants = {name: value for name, value in values.items() if name not in fed}
        shapes = [values[name].shape for name in fed]
        nodes = []
        if len(fed) == 1 and shapes[0][:1] == (1,):
            source, data = fed[0], values[fed[0]]
        else:
            # Another batch, or several inputs: they lie behind each other in one row.
            source, data = "row", np.concatenate([values[name].ravel() for name in fed])[None]
            ends = np.cumsum([values[name].size for name in fed])
            for name, end in zip(fed, ends, strict=True):
                part, size = values[name], values[name].size
                constants |= {
                    f"{name}_from": np.asarray([end - size]), f"{name}_to": np.asarray([end]),
                    f"{name}_axis": np.asarray([1]),
                    f"{name}_shape": np.asarray(part.shape, np.int64),
                }  # fmt: skip
                where = [f"{name}_{key}" for key in ("from", "to", "axis")]
                nodes += [
                    helper.make_node("Slice", ["row", *where], [f"{name}_part"]),
                    helper.make_node("Reshape", [f"{name}_part", f"{name}_shape"], [name]),
                ]
        made = helper.make_graph(
            [*nodes, *graph.node],
            "case",
            [helper.make_tensor_value_info(source, onnx.TensorProto.FLOAT, data.shape)],
            [graph.output[self.output]],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        )
        # Forms from before version 13 are still those of 13.
        opset = max(13, self.case.model.opset_import[0].version)
        model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)])
        return model, data


def runs():
    with warnings.catch_warnings():
        # Cases of other operators overflow on purpose as they are made.
        warnings.simplefilter("ignore")
        cases = collect_testcases(None)
    found = []
    for case in cases:
        nodes = case.model.graph.node
        if len(nodes) != 1 or nodes[0].domain or nodes[0].op_type not in LOWERINGS:
            continue
        inputs, outputs = case.data_sets[0]
        if not is_array(inputs[0], "float32"):
            continue
        floats = all(is_array(value, "float32") for value in inputs)
        joining = nodes[0].op_type in JOINING and len(inputs) > 1 and floats
        found += [
            Run(case, index, computed)
            for index, output in enumerate(outputs)
            for computed in ([False, True] if joining else [False])
            if is_array(output, "float32", "int8", "uint8")
        ]
    return found


def is_array(value, *dtypes):
    return isinstance(value, np.ndarray) and value.dtype.name in dtypes


RUNS = runs()


def expected(run):
    array = run.case.data_sets[0][1][run.output]
    if array.dtype == np.uint8:
        # The file holds every uint8 code as int8, 128 lower: the same grid.
        return (array.astype(np.int16) - 128).astype(np.int8)
    return array


def found(model, data):
    lowered = lower(model)
    interpreter = Interpreter(model_content=lowered.data, num_threads=1)
    interpreter.allocate_tensors()
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    data = data.transpose(0, 2, 3, 1) if data.ndim == 4 else data
    interpreter.set_tensor(source["index"], np.ascontiguousarray(data))
    interpreter.invoke()
    return interpreter.get_tensor(result["index"])


@pytest.mark.parametrize("run", [pytest.param(run, id=run.name) for run in RUNS])
def test_node(run):
    model, data = run.graph()
    if run.refusal is not None:
        with pytest.raises(GraphError, match=run.refusal):
            lower(model)
        return

    wanted, result = expected(run), found(model, data)

    assert result.dtype == wanted.dtype
    assert result.shape == wanted.shape
    if wanted.dtype == np.int8:
        np.testing.assert_array_equal(result, wanted)
    else:
        # ONNX's own tolerance, and the last bits of float32 next to the largest value.
        limit = 1e-6 * max(1.0, float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0)))
        np.testing.assert_allclose(result, wanted, rtol=run.case.rtol, atol=limit)


def test_every_operator_has_a_case():
    tested = {run.case.model.graph.node[0].op_type for run in RUNS if run.refusal is None}

    # Their cases take codes, which no image is, or end in codes that a kernel keeps to itself.
    assert set(LOWERINGS) - tested == {"DequantizeLinear", "DynamicQuantizeLinear"}


def test_every_refusal_has_a_case():
    for pattern in REFUSED:
        assert any(fnmatch.fnmatchcase(run.name, pattern) for run in RUNS), pattern
