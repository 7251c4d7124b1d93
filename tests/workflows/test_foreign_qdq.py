"""Graphs that another tool has quantized: their scales are kept to the letter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from PIL import Image

from edgecls.bundle import Bundle
from edgecls.core.errors import GraphError, UnsupportedOperatorError, UsageError
from edgecls.core.preprocess import PRESETS
from edgecls.core.progress import Quiet
from edgecls.runtimes import load
from edgecls.workflows.export import export
from edgecls.workflows.export_options import ExportOptions

if TYPE_CHECKING:
    from ..conftest import Digits

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:onnxruntime.*")


class Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, folder: Path) -> None:
        self.files = iter(sorted(folder.rglob("*.png"))[::50])

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        file = next(self.files, None)
        if file is None:
            return None
        pixels = np.asarray(Image.open(file).convert("L"))[None, :, :, None]
        return {"input": PRESETS["mnist"].normalize(pixels)}


@pytest.fixture(scope="module")
def float_onnx(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("float")
    export(
        ExportOptions(
            source="lenet5", weights=digits.weights, targets=("jetson",), precision="fp32",
            out=out, keep_graphs=out,
        ),
        Quiet(),
    )  # fmt: skip
    return out / "float.onnx"


def quantized(
    digits: Digits, source: Path, out: Path, kind: QuantType, symmetric: bool, contrib: bool = False
) -> Path:
    quantize_static(
        source, out, Reader(digits.train), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=kind, weight_type=QuantType.QInt8,
        extra_options={"ActivationSymmetric": symmetric, "UseQDQContribOps": contrib},
    )  # fmt: skip
    return out


def exported(source: Path, target: str, out: Path) -> Bundle:
    export(
        ExportOptions(source=str(source), targets=(target,), preprocess="mnist", out=out), Quiet()
    )
    return Bundle(out / target)


def tflite_scales(bundle: Bundle) -> set[tuple[float, ...]]:
    data = bundle.read(bundle.manifest.artefacts[0].path)
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    return {
        tuple(np.atleast_1d(tensor.quantization.scale).tolist())
        for tensor in model.subgraphs[0].tensors
        if tensor.quantization is not None and tensor.quantization.scale is not None
        and tensor.type in (schema.TensorType.INT8, schema.TensorType.INT16)
    }  # fmt: skip


def onnx_scales(file: Path) -> set[tuple[float, ...]]:
    model = onnx.load(file)
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    return {
        tuple(np.atleast_1d(constants[node.input[1]]).astype(float).tolist())
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
    }


@pytest.mark.parametrize("kind", [QuantType.QInt8, QuantType.QUInt8], ids=["int8", "uint8"])
@pytest.mark.parametrize("symmetric", [False, True], ids=["asymmetric", "symmetric"])
def test_onnx_runtimes_scales_are_kept(
    digits: Digits, float_onnx: Path, tmp_path: Path, kind: QuantType, symmetric: bool
) -> None:
    file = quantized(digits, float_onnx, tmp_path / "q.onnx", kind, symmetric)
    bundle = exported(file, "raspberry-pi", tmp_path / "out")

    assert bundle.manifest.precision == "int8"
    assert bundle.manifest.calibration is None
    assert tflite_scales(bundle) <= onnx_scales(file)
    images = sorted(digits.judged.rglob("*.png"))[::10]
    answers = [p.top1.index for p in load(bundle).predict_batch(images)]
    truth = [int(image.parent.name.split("_")[0]) for image in images]
    assert np.mean(np.array(answers) == truth) > 0.95


@pytest.mark.parametrize("kind", [QuantType.QInt16, QuantType.QUInt16], ids=["int16", "uint16"])
@pytest.mark.parametrize("contrib", [False, True], ids=["onnx", "contrib"])
def test_16_bit_scales_are_kept(
    digits: Digits, float_onnx: Path, tmp_path: Path, kind: QuantType, contrib: bool
) -> None:
    file = quantized(digits, float_onnx, tmp_path / "q.onnx", kind, True, contrib)
    bundle = exported(file, "raspberry-pi", tmp_path / "out")
    artefact = bundle.manifest.artefacts[0]

    domains = {n.domain for n in onnx.load(file).graph.node if n.op_type == "QuantizeLinear"}
    assert domains == {"com.microsoft" if contrib else ""}
    assert bundle.manifest.precision == "int16x8"
    assert (artefact.path, artefact.input.dtype) == ("model.int16x8.tflite", "int16")
    assert artefact.left_float == ()
    assert tflite_scales(bundle) <= onnx_scales(file)
    (step,) = [step for step in bundle.manifest.steps if step.step == "lower"]
    assert step.max_difference < 0.001
    images = sorted(digits.judged.rglob("*.png"))[::10]
    answers = [p.top1.index for p in load(bundle).predict_batch(images)]
    truth = [int(image.parent.name.split("_")[0]) for image in images]
    assert np.mean(np.array(answers) == truth) > 0.95


def test_an_asymmetric_graph_of_16_bits_is_refused(
    digits: Digits, float_onnx: Path, tmp_path: Path
) -> None:
    file = quantized(digits, float_onnx, tmp_path / "q.onnx", QuantType.QUInt16, False)

    with pytest.raises(UnsupportedOperatorError, match="16-bit activations are symmetric"):
        exported(file, "raspberry-pi", tmp_path / "out")


def test_a_graph_of_16_bits_is_for_targets_that_run_it(
    digits: Digits, float_onnx: Path, tmp_path: Path
) -> None:
    file = quantized(digits, float_onnx, tmp_path / "q.onnx", QuantType.QInt16, True)

    with pytest.raises(UsageError, match="jetson does not run int16x8"):
        exported(file, "jetson", tmp_path / "out")


def test_a_symmetric_graph_goes_to_tensorrt(
    digits: Digits, float_onnx: Path, tmp_path: Path
) -> None:
    file = quantized(digits, float_onnx, tmp_path / "q.onnx", QuantType.QInt8, True)
    bundle = exported(file, "desktop-gpu", tmp_path / "out")

    assert bundle.manifest.artefacts[0].path == "model.int8.onnx"
    assert bundle.manifest.artefacts[0].left_float == ()
    shipped = onnx.ModelProto.FromString(bundle.read("model.int8.onnx"))
    kinds = {t.data_type for t in shipped.graph.initializer}
    assert onnx.TensorProto.INT32 not in kinds, "TensorRT's parser refuses int32 biases"


def test_an_asymmetric_graph_is_refused_for_tensorrt(
    digits: Digits, float_onnx: Path, tmp_path: Path
) -> None:
    file = quantized(digits, float_onnx, tmp_path / "q.onnx", QuantType.QInt8, False)

    with pytest.raises(GraphError, match="zero point is not 0"):
        exported(file, "jetson", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_quantized_graph_is_int8_only(digits: Digits, float_onnx: Path, tmp_path: Path) -> None:
    file = quantized(digits, float_onnx, tmp_path / "q.onnx", QuantType.QInt8, True)
    options = ExportOptions(
        source=str(file), targets=("jetson",), preprocess="mnist", precision="fp16", out=tmp_path
    )

    with pytest.raises(UsageError, match="only be exported as int8"):
        export(options, Quiet())
