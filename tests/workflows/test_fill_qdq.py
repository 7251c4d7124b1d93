"""Quantized graphs whose points are others than TFLite's: --calib fills, --strict-int8 refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import QuantType

from edgecls.bundle import Bundle
from edgecls.calibration.placement import place_weights
from edgecls.core.errors import CheckFailedError, UsageError
from edgecls.core.progress import Quiet
from edgecls.runtimes import load
from edgecls.workflows.export import export
from edgecls.workflows.export_options import ExportOptions

from .test_foreign_qdq import float_onnx as float_onnx
from .test_foreign_qdq import onnx_scales, quantized, tflite_scales

if TYPE_CHECKING:
    from ..conftest import Command, Digits


@pytest.fixture(scope="module")
def fused(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graph made for TensorRT: Q/DQ on the inputs of convolutions only, zero points 0."""
    out = tmp_path_factory.mktemp("fused")
    export(
        ExportOptions(
            source="lenet5", weights=digits.weights, targets=("jetson",), calib=digits.train,
            out=out, keep_graphs=out,
        ),
        Quiet(),
    )  # fmt: skip
    return out / "qdq.fused.symmetric.onnx"


def options(source: Path, out: Path, **more: object) -> ExportOptions:
    values = {"source": str(source), "targets": ("raspberry-pi",), "preprocess": "mnist"}
    return ExportOptions(**{**values, "out": out, **more})  # type: ignore[arg-type]


def test_calib_fills_what_the_graph_lacks(digits: Digits, fused: Path, tmp_path: Path) -> None:
    export(options(fused, tmp_path, calib=digits.train, strict_int8=True), Quiet())
    bundle = Bundle(tmp_path / "raspberry-pi")

    assert bundle.manifest.artefacts[0].left_float == ()
    assert bundle.manifest.calibration is not None
    assert onnx_scales(fused) <= tflite_scales(bundle), "scales of the source are kept"
    images = sorted(digits.judged.rglob("*.png"))[::10]
    answers = [p.top1.index for p in load(bundle).predict_batch(images)]
    truth = [int(image.parent.name.split("_")[0]) for image in images]
    assert np.mean(np.array(answers) == truth) > 0.95
    steps = {step.step: step for step in bundle.manifest.steps}
    assert steps["fill-qdq"].limit is None
    assert 0 < steps["fill-qdq"].max_difference < 0.2


def test_calib_adds_nothing_to_a_whole_graph(
    digits: Digits, float_onnx: Path, tmp_path: Path
) -> None:
    """ONNX Runtime's form: every tensor has a pair, the logits too."""
    whole = quantized(digits, float_onnx, tmp_path / "q.onnx", QuantType.QUInt8, symmetric=False)
    files = []
    for name, calib in (("plain", None), ("filled", digits.train)):
        export(options(whole, tmp_path / name, calib=calib, strict_int8=True), Quiet())
        files.append(Bundle(tmp_path / name / "raspberry-pi").read("model.int8.tflite"))

    assert files[0] == files[1]


@pytest.fixture(scope="module")
def weights_only(float_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights behind DequantizeLinear, and no QuantizeLinear."""
    path = tmp_path_factory.mktemp("weights") / "weights.onnx"
    onnx.save(place_weights(onnx.load(float_onnx)), path)
    assert {n.op_type for n in onnx.load(path).graph.node} & QDQ == {"DequantizeLinear"}
    return path


QDQ = {"QuantizeLinear", "DequantizeLinear"}


def test_a_graph_of_quantized_weights_is_int8_weights(weights_only: Path, tmp_path: Path) -> None:
    export(options(weights_only, tmp_path), Quiet())
    bundle = Bundle(tmp_path / "raspberry-pi")

    assert bundle.manifest.precision == "int8-weights"
    assert bundle.manifest.artefacts[0].input.dtype == "float32"
    assert onnx_scales(weights_only) <= tflite_scales(bundle)
    for more in ({"strict_int8": True}, {"precision": "int8"}, {"targets": ("jetson",)}):
        with pytest.raises(UsageError, match="int8-weights"):
            export(options(weights_only, tmp_path / "refused", **more), Quiet())
    assert not (tmp_path / "refused").exists()


def test_calib_quantizes_the_activations_of_quantized_weights(
    digits: Digits, weights_only: Path, tmp_path: Path
) -> None:
    export(options(weights_only, tmp_path, calib=digits.train, strict_int8=True), Quiet())
    bundle = Bundle(tmp_path / "raspberry-pi")

    assert bundle.manifest.precision == "int8"
    assert bundle.manifest.artefacts[0].left_float == ()
    assert bundle.manifest.artefacts[0].quantized > 3
    assert onnx_scales(weights_only) <= tflite_scales(bundle)


def test_without_calib_strict_int8_names_the_nodes_and_the_fix(fused: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckFailedError, match=r"raspberry-pi: node_\w+.*give --calib DIR") as stop:
        export(options(fused, tmp_path / "strict", strict_int8=True), Quiet())
    assert not (tmp_path / "strict").exists()
    export(options(fused, tmp_path), Quiet())
    artefact = Bundle(tmp_path / "raspberry-pi").manifest.artefacts[0]

    assert artefact.left_float
    assert all(name in str(stop.value) for name in artefact.left_float)


def test_strict_int8_is_about_calibrated_precisions(fused: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--strict-int8 is for int16x8 and int8, not for fp32"):
        export(options(fused, tmp_path, strict_int8=True, precision="fp32"), Quiet())


def test_the_terminal_and_json_name_what_stays_float(
    edgecls: Command, fused: Path, tmp_path: Path
) -> None:
    common = ["export", fused, "--target", "raspberry-pi", "--preprocess", "mnist", "-o", tmp_path]
    shown, machine = edgecls(*common), edgecls(*common, "--json")
    names = json.loads(machine.out)["bundles"][0]["artefacts"][0]["left_float"]

    assert names
    assert "left in float: " in shown.out
    assert all(name in shown.out for name in names)
    failed = edgecls(*common, "--strict-int8")
    assert failed.code == 1
    assert "--calib DIR" in failed.err


class Notes(Quiet):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


def test_weight_codes_of_128_are_narrowed_and_said(
    digits: Digits, fused: Path, tmp_path: Path
) -> None:
    model = onnx.load(fused)
    changed = 0
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if tensor.data_type == onnx.TensorProto.INT8 and array.ndim > 1:
            changed += int((array == -127).sum())
            codes = np.where(array == -127, np.int8(-128), array)
            tensor.CopyFrom(onnx.numpy_helper.from_array(codes, tensor.name))
    assert changed
    onnx.save(model, tmp_path / "wide.onnx")
    notes = Notes()
    export(options(tmp_path / "wide.onnx", tmp_path), notes)

    assert any(
        note.startswith(f"{changed} weight code(s) -128 became -127") for note in notes.notes
    )
    steps = {step.step: step for step in Bundle(tmp_path / "raspberry-pi").manifest.steps}
    assert steps["adopt-qdq"].limit is not None
    assert steps["adopt-qdq"].max_difference > 0


def test_tensorrt_gets_the_missing_points_too(digits: Digits, fused: Path, tmp_path: Path) -> None:
    """A graph in which the last layer is float: the parser takes what was added."""
    model = onnx.load(fused)
    gemm = [node for node in model.graph.node if node.op_type == "Gemm"][-1]
    producers = {node.output[0]: node for node in model.graph.node}
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    weights = producers[gemm.input[1]]
    floats = constants[weights.input[0]] * constants[weights.input[1]].reshape(-1, 1)
    model.graph.initializer.append(
        onnx.numpy_helper.from_array(floats.astype(np.float32), "float_weights")
    )
    gemm.input[0] = producers[producers[gemm.input[0]].input[0]].input[0]
    gemm.input[1] = "float_weights"
    onnx.save(model, tmp_path / "most.onnx")
    wanted = {"targets": ("jetson",), "strict_int8": True}

    with pytest.raises(CheckFailedError, match=gemm.name):
        export(options(tmp_path / "most.onnx", tmp_path, **wanted), Quiet())
    export(options(tmp_path / "most.onnx", tmp_path, calib=digits.train, **wanted), Quiet())
    assert Bundle(tmp_path / "jetson").manifest.artefacts[0].left_float == ()
