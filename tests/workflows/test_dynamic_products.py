"""`export --precision int8-dynamic` for ONNX Runtime: what ships, and what it answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from edgecls.core.progress import Quiet
from edgecls.runtimes import load
from edgecls.workflows.export import export
from edgecls.workflows.export_options import ExportOptions

if TYPE_CHECKING:
    from ..conftest import Digits


@pytest.fixture(scope="module")
def bundle(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dynamic")
    options = ExportOptions(
        source="lenet5", weights=digits.weights, targets=("desktop-cpu",), out=out,
        precision="int8-dynamic",
    )  # fmt: skip
    return export(options, Quiet()).bundles[0].path


def test_an_image_does_not_depend_on_those_beside_it(bundle: Path, digits: Digits) -> None:
    """Ranges are of one image: a batch is not one tensor."""
    predictor = load(bundle)
    images = sorted(digits.judged.rglob("*.png"))[::97]
    together = predictor.predict_batch(images, logits=True)

    assert predictor.backend == "onnxruntime-cpu"
    for image, found in zip(images, together, strict=True):
        alone = predictor.predict(image, logits=True)
        assert np.array_equal(alone.logits, found.logits)


def test_a_simulation_takes_one_image_as_the_file_does(digits: Digits, tmp_path: Path) -> None:
    """A batch of samples has another range than each of them: codes would be others."""
    options = ExportOptions(
        source="lenet5", weights=digits.weights, targets=("raspberry-pi",), out=tmp_path,
        precision="int8-dynamic", calib=digits.train,
    )  # fmt: skip
    manifest = load(export(options, Quiet()).bundles[0].path).bundle.manifest
    lowered = {step.step: step for step in manifest.steps}["lower"]

    assert lowered.against == "the graph that is quantized as it runs"
    assert lowered.max_difference < 1e-5


def test_weights_ship_as_codes_and_compute_as_they_should(bundle: Path, digits: Digits) -> None:
    """Every large weight is int8 in the file; the step that compares the two forms is exact."""
    manifest = load(bundle).bundle.manifest
    graph = onnx.load(bundle / "model.int8-dynamic.onnx").graph
    steps = {step.step: step for step in manifest.steps}
    large = [t for t in graph.initializer if np.prod(t.dims) >= 1024]

    assert {tensor.data_type for tensor in large} == {onnx.TensorProto.INT8}
    assert sum(node.op_type == "MatMulInteger" for node in graph.node) == 2
    assert manifest.calibration is None
    assert steps["quantize-weights"].limit is None
    assert 0 < steps["quantize-weights"].max_difference < 0.05
    assert steps["fuse"].against == "the graph that is quantized as it runs"
    assert steps["fuse"].max_difference < 1e-5
