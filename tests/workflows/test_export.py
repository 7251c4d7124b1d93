"""The chain on a really trained model, over every target and precision."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgecls.bundle import Bundle
from edgecls.core.errors import UsageError
from edgecls.core.preprocess import PIXEL_STEPS
from edgecls.core.progress import Quiet
from edgecls.core.values import CALIBRATED
from edgecls.runtimes import load
from edgecls.runtimes.preprocess import pixels_from_png
from edgecls.runtimes.steps import array_sha256
from edgecls.targets import TARGETS
from edgecls.workflows.export import export
from edgecls.workflows.export_options import ExportOptions
from edgecls.workflows.graph import STEP_LIMIT

if TYPE_CHECKING:
    from edgecls.core.values import Precision

    from ..conftest import Digits

CASES = [(name, precision) for name, t in TARGETS.items() for precision in t.precisions]


def options(digits: Digits, out: Path, **changes: object) -> ExportOptions:
    values: dict[str, object] = {
        "source": "lenet5", "weights": digits.weights, "targets": ("raspberry-pi",), "out": out,
        "calib": digits.train, "calib_images": 40,
    }  # fmt: skip
    return ExportOptions(**{**values, **changes})  # type: ignore[arg-type]


def test_the_demonstration_passes_its_gate(digits: Digits) -> None:
    result = digits.result

    assert result.exit_code == 0
    assert [row.target for row in result.rows] == list(TARGETS)
    for row in result.rows:
        assert row.report.metrics.agreement >= 99.0


@pytest.mark.parametrize(("target", "precision"), CASES)
def test_every_target_and_precision(
    digits: Digits, tmp_path: Path, target: str, precision: Precision
) -> None:
    made = export(options(digits, tmp_path, targets=(target,), precision=precision), Quiet())
    bundle = Bundle(tmp_path / target)
    bundle.verify()
    manifest = bundle.manifest

    assert [b.path for b in made.bundles] == [tmp_path / target]
    assert manifest.precision == manifest.artefacts[0].precision == precision
    assert manifest.artefacts[0].format == TARGETS[target].ships
    dynamic = precision == "int8-dynamic"
    # Weights of fewer than 1,024 numbers stay float where nothing is calibrated; in ONNX Runtime
    # convolutions too.
    left = 0 if not dynamic else 2 if manifest.artefacts[0].format == "tflite" else 3
    assert len(manifest.artefacts[0].left_float) == left
    assert (manifest.artefacts[0].quantized > 0) == (precision in CALIBRATED or dynamic)
    assert len(manifest.golden) >= 4
    assert manifest.golden_source == "calibration"
    assert all(step.limit is None or step.max_difference <= step.limit for step in manifest.steps)
    formats = {artefact.format for artefact in manifest.artefacts}
    assert ("tensorrt-rtx" in formats) == TARGETS[target].engine
    predictor = load(bundle, allow_fallback=True)
    assert predictor.precision == precision
    for sample in manifest.golden:
        assert tuple(sample.steps) == PIXEL_STEPS
        assert set(sample.tensors) == {artefact.path for artefact in manifest.artefacts}
        fed = predictor.tensors(pixels_from_png(bundle.read(sample.pixels))[None])[0]
        assert sample.tensors[predictor.artefact.path] == array_sha256(fed)


SMALLER = {"fp16": 0.55, "int8-weights": 0.35, "int8-dynamic": 0.35}


@pytest.mark.parametrize("precision", SMALLER)
def test_weights_without_calibration(digits: Digits, tmp_path: Path, precision: Precision) -> None:
    for made in ("fp32", precision):
        export(options(digits, tmp_path / made, precision=made, calib=None), Quiet())
    bundles = [Bundle(tmp_path / made / "raspberry-pi").manifest for made in ("fp32", precision)]
    whole, small = (m.files[m.artefacts[0].path].size_bytes for m in bundles)
    steps = {step.step: step for step in bundles[1].steps}
    changed = steps["round-weights" if precision == "fp16" else "quantize-weights"]

    assert bundles[1].calibration is None
    assert bundles[1].golden_source == "synthetic"
    assert small < SMALLER[precision] * whole
    assert changed.limit is None
    assert 0 < changed.max_difference < 0.05
    if precision == "int8-dynamic":
        assert steps["lower"].against == "the graph that is quantized as it runs"
    else:
        assert steps["lower"].limit == STEP_LIMIT
        assert steps["lower"].max_difference < 1e-5


def test_int8_bundles_carry_what_the_device_builds_from(digits: Digits) -> None:
    jetson = Bundle(digits.bundle("jetson")).manifest
    pi = Bundle(digits.bundle("raspberry-pi")).manifest

    assert [a.path for a in jetson.artefacts] == ["model.int8.onnx", "model.fp16.onnx"]
    assert [a.path for a in pi.artefacts] == ["model.int8.tflite"]
    assert pi.artefacts[0].input.dtype == "int8"
    assert pi.artefacts[0].output.dtype == "int8"
    assert pi.artefacts[0].input.shape == (1, 28, 28, 1)
    assert jetson.artefacts[0].input.shape == (None, 1, 28, 28)
    assert jetson.calibration == pi.calibration


def test_the_same_inputs_give_the_same_bundle(digits: Digits, tmp_path: Path) -> None:
    for name in ("a", "b"):
        export(options(digits, tmp_path / name, targets=("raspberry-pi", "jetson")), Quiet())

    for target in ("raspberry-pi", "jetson"):
        first, second = (Bundle(tmp_path / name / target) for name in ("a", "b"))
        assert first.manifest.files == second.manifest.files
        assert first.sha256 == second.sha256


def test_fingerprint_counts_the_calibration_images(digits: Digits) -> None:
    fingerprint = Bundle(digits.bundle("jetson")).manifest.fingerprint

    assert fingerprint is not None
    assert fingerprint.images == 200
    assert sum(fingerprint.class_counts) == 200
    assert sum(fingerprint.confidence_histogram) == 200
    assert [sum(row) for row in fingerprint.pixel_histogram] == [200 * 28 * 28]


def test_without_images_samples_are_synthetic_and_say_so(digits: Digits, tmp_path: Path) -> None:
    export(options(digits, tmp_path, precision="fp32", calib=None), Quiet())
    manifest = Bundle(tmp_path / "raspberry-pi").manifest

    assert manifest.golden_source == "synthetic"
    assert manifest.calibration is None


def test_an_onnx_file_exports_like_its_module(digits: Digits, tmp_path: Path) -> None:
    keep = tmp_path / "graphs"
    export(options(digits, tmp_path / "torch", keep_graphs=keep), Quiet())
    source = str(keep / "float.onnx")
    export(
        options(digits, tmp_path / "onnx", source=source, weights=None, preprocess="mnist"),
        Quiet(),
    )
    images = sorted(digits.judged.rglob("*.png"))[:20]
    answers = [
        np.array([p.logits for p in load(tmp_path / name / "raspberry-pi").predict_batch(
            images, logits=True)])
        for name in ("torch", "onnx")
    ]  # fmt: skip

    assert np.array_equal(*answers)


@pytest.mark.parametrize("delay_s", [2.0, 4.0, 6.0])
@pytest.mark.slow
def test_a_kill_leaves_the_old_bundle(digits: Digits, tmp_path: Path, delay_s: float) -> None:
    export(options(digits, tmp_path), Quiet())
    before = Bundle(tmp_path / "raspberry-pi").sha256
    command = [
        sys.executable, "-m", "edgecls", "export", "lenet5", "--weights", digits.weights,
        "--target", "raspberry-pi", "--calib", digits.train, "--seed", "9", "-o", tmp_path,
    ]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        time.sleep(delay_s)
        os.kill(process.pid, signal.SIGKILL)
    bundle = Bundle(tmp_path / "raspberry-pi")
    bundle.verify()

    assert bundle.manifest.calibration is not None
    assert bundle.sha256 == before or bundle.manifest.calibration.seed == 9


def test_the_file_for_phones_answers_alike(digits: Digits, tmp_path: Path) -> None:
    names = tmp_path / "labels.txt"
    names.write_text("\n".join(f"digit {n}" for n in range(10)))
    export(options(digits, tmp_path, phone=True, labels=names), Quiet())
    bundle = Bundle(tmp_path / "raspberry-pi")
    device, phone = bundle.manifest.artefacts

    assert phone.path == "model.int8.phone.tflite"
    assert (phone.input.dtype, phone.output.dtype) == ("uint8", "float32")
    steps = {step.step: step.max_difference for step in bundle.manifest.steps}
    assert steps["phone"] <= 0.01
    assert b"digit 7" in bundle.read(phone.path)
    assert load(bundle).artefact == device, "on a device the first file runs"


def test_only_tflite_has_a_form_for_phones(digits: Digits, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="raspberry-pi"):
        export(options(digits, tmp_path, phone=True, targets=("jetson",)), Quiet())
