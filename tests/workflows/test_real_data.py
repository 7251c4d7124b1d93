"""Published weights on real photos: what the README states must hold."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from edgecls.bundle import Bundle
from edgecls.core.progress import Quiet
from edgecls.data.images import list_images, select_images
from edgecls.runtimes import load
from edgecls.runtimes.preprocess import to_pixels
from edgecls.workflows.answering import DataOptions
from edgecls.workflows.drift import DriftOptions, drift
from edgecls.workflows.export import export
from edgecls.workflows.export_options import ExportOptions
from edgecls.workflows.graph import run_onnx
from edgecls.workflows.sources import ModelOptions, from_predictor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgecls.core.values import Precision

    from ..conftest import Command

LITE0 = "timm:tf_efficientnet_lite0"
CALIBRATION = 100


def lite0_weights(data: Path) -> Path:
    return data / "weights" / "efficientnet-lite0-57934424.pth"


@pytest.fixture(scope="module")
def photos(edgecls_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """100 photos to calibrate with and the other 400 to judge by, as links."""
    root = tmp_path_factory.mktemp("photos")
    every = list_images(edgecls_data / "imagenet500")
    chosen = {image.name for image in select_images(every, CALIBRATION, 0)}
    for image in every:
        link = root / ("calibration" if image.name in chosen else "judged") / image.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(image.path)
    return root / "calibration", root / "judged"


@pytest.fixture(scope="module")
def lite0(
    edgecls_data: Path, photos: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("lite0")
    export(
        ExportOptions(
            source=LITE0,
            weights=lite0_weights(edgecls_data),
            targets=("raspberry-pi", "jetson"),
            calib=photos[0],
            labels=edgecls_data / "imagenet_classes.json",
            out=out,
            keep_graphs=out / "graphs",
        ),
        Quiet(),
    )
    return out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "backend"), [("raspberry-pi", "litert"), ("jetson", "onnxruntime")]
)
def test_lite0_keeps_its_accuracy(
    lite0: Path, photos: tuple[Path, Path], target: str, backend: str
) -> None:
    predictor = load(lite0 / target, backend=backend)  # type: ignore[arg-type]
    # The float graph was compared with torch to 1e-3 of its outputs when it was exported.
    options = DriftOptions(
        reference=str(lite0 / "graphs" / "float.onnx"), data=DataOptions(data=photos[1])
    )
    report = drift(from_predictor(predictor), options, Quiet())
    found = report.summary()

    assert report.verdict.outcome in {"passed", "undecided"}, "400 photos are few"
    assert report.verdict.checks[0].upper is not None
    assert report.verdict.checks[0].upper <= 2.0
    assert report.metrics.images == 400
    assert found.reference_top1 == pytest.approx(87.25, abs=0.26), "one photo is 0.25 points"
    assert found.top1_drop <= 1.0
    assert found.agreement >= 96.0


def noise(
    bundles: Sequence[Path], graph: Path, images: Sequence[Path]
) -> tuple[list[float], list[float]]:
    """Return how far bundles' logits are from a float graph's, RMS over RMS, and the agreement."""
    predictors = [load(bundle) for bundle in bundles]
    preprocess = Bundle(bundles[0]).manifest.preprocess
    pixels = np.concatenate([to_pixels(image, preprocess)[None] for image in images])
    expected = run_onnx(onnx.load(graph), preprocess.normalize(pixels))
    found = [predictor.logits(pixels) for predictor in predictors]
    return (
        [float(np.sqrt(((f - expected) ** 2).mean() / (expected**2).mean())) for f in found],
        [float((f.argmax(1) == expected.argmax(1)).mean()) for f in found],
    )


@pytest.mark.slow
def test_lite0_in_16x8_is_closer_to_float(
    edgecls_data: Path, lite0: Path, photos: tuple[Path, Path], tmp_path: Path
) -> None:
    options = ExportOptions(
        source=LITE0, weights=lite0_weights(edgecls_data), targets=("raspberry-pi",),
        precision="int16x8", calib=photos[0], out=tmp_path,
    )  # fmt: skip
    export(options, Quiet())
    images = sorted(photos[1].rglob("*.*"))[::25]
    bundles = [lite0 / "raspberry-pi", tmp_path / "raspberry-pi"]
    (narrow, wide), (_, agreement) = noise(bundles, lite0 / "graphs" / "float.onnx", images)

    artefact = Bundle(bundles[1]).manifest.artefacts[0]
    assert (artefact.quantized, artefact.left_float) == (60, ())
    # What is left is the noise of the int8 weights, which both have.
    assert wide < 0.9 * narrow
    assert agreement >= 0.95


@pytest.mark.slow
def test_lite0_is_small_and_whole(lite0: Path) -> None:
    manifest = Bundle(lite0 / "raspberry-pi").manifest
    artefact = manifest.artefacts[0]

    assert manifest.files[artefact.path].size_bytes <= 5_500_000
    assert artefact.left_float == ()
    assert manifest.golden_source == "calibration"
    assert manifest.synsets is not None
    steps = {step.step: step.max_difference for step in manifest.steps}
    assert steps["torch-to-onnx"] < 1e-5


PREPROCESS = """
[preprocess]
resize = 256
crop = 224
interpolation = "bicubic"
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "precision", "megabytes", "agreement"),
    [
        ("raspberry-pi", "fp16", 9.5, 99.5), ("raspberry-pi", "int8-weights", 5.1, 97.5),
        ("raspberry-pi", "int8-dynamic", 5.1, 97.0), ("desktop-cpu", "int8-dynamic", 5.1, 97.0),
    ],
)  # fmt: skip
def test_lite0_without_calibration(
    lite0: Path,
    edgecls_data: Path,
    photos: tuple[Path, Path],
    tmp_path: Path,
    target: str,
    precision: Precision,
    megabytes: float,
    agreement: float,
) -> None:
    source = lite0 / "graphs" / "float.onnx"
    (tmp_path / "p.toml").write_text(PREPROCESS)
    export(
        ExportOptions(
            source=str(source), targets=(target,), precision=precision,
            preprocess=str(tmp_path / "p.toml"), labels=edgecls_data / "imagenet_classes.json",
            out=tmp_path,
        ),
        Quiet(),
    )  # fmt: skip
    bundle = Bundle(tmp_path / target)
    assert bundle.manifest.preprocess == Bundle(lite0 / "raspberry-pi").manifest.preprocess
    options = DriftOptions(reference=str(source), data=DataOptions(data=photos[1]))
    report = drift(from_predictor(load(bundle)), options, Quiet())

    path = bundle.manifest.artefacts[0].path
    assert bundle.manifest.files[path].size_bytes < megabytes * 1e6
    assert report.metrics.images == 400
    assert report.metrics.agreement >= agreement


@pytest.mark.slow
def test_resnet20_keeps_its_accuracy(edgecls_data: Path, tmp_path: Path) -> None:
    for part in ("dev_train5000", "dev_test1000"):
        script = edgecls_data / "cifar10" / "unpack.py"
        subprocess.run([sys.executable, script, part, tmp_path / part], check=True)
    weights = edgecls_data / "weights" / "resnet20-12fca82f.th"
    precisions: tuple[Precision, ...] = ("int8", "int16x8")
    for precision in precisions:
        export(
            ExportOptions(
                source="cifar_resnet20",
                weights=weights,
                targets=("raspberry-pi",),
                precision=precision,
                calib=tmp_path / "dev_train5000",
                labels=edgecls_data / "cifar10" / "classes.json",
                out=tmp_path / precision,
                keep_graphs=tmp_path / "graphs",
            ),
            Quiet(),
        )
    options = DriftOptions(
        reference="cifar_resnet20",
        model=ModelOptions(weights=weights),
        data=DataOptions(data=tmp_path / "dev_test1000"),
    )
    bundles = [tmp_path / precision / "raspberry-pi" for precision in precisions]
    found = drift(from_predictor(load(bundles[0])), options, Quiet()).summary()

    assert found.reference_top1 == pytest.approx(91.4, abs=0.11)
    assert found.top1_drop <= 1.0
    assert found.agreement >= 98.0
    images = sorted((tmp_path / "dev_test1000").rglob("*.png"))[::10]
    (narrow, wide), (_, agreement) = noise(bundles, tmp_path / "graphs" / "float.onnx", images)
    assert wide < 0.7 * narrow
    assert agreement >= 0.98


@pytest.mark.slow
def test_every_awkward_file_through_the_command(
    edgecls: Command, lite0: Path, edgecls_data: Path
) -> None:
    nasty = edgecls_data / "nasty"
    expected = json.loads((nasty / "manifest.json").read_text())
    files = [nasty / name.rstrip("/") for name in expected]
    done = edgecls("predict", lite0 / "raspberry-pi", "--json", "--", *files)
    lines = [json.loads(line) for line in done.out.splitlines()]

    assert done.code == 4
    assert done.err == ""
    assert [line["image"] for line in lines] == [str(file) for file in files]
    for line, said in zip(lines, expected.values(), strict=True):
        wanted = said["expect"].lower()
        if wanted.startswith(("error", "refuse", "skip")) or "directory" in wanted:
            assert "error" in line, line
        elif wanted.startswith("ok"):
            assert "topk" in line, line


@pytest.mark.slow
@pytest.mark.parametrize("orientation", [2, 3, 6, 8])
def test_a_turned_photo_gets_the_upright_answer(
    lite0: Path, edgecls_data: Path, orientation: int
) -> None:
    predictor = load(lite0 / "raspberry-pi")
    turned = predictor.predict(edgecls_data / f"nasty/exif_orientation_{orientation}.jpg")

    assert turned.top1.label == "Japanese spaniel"
    assert turned.top1.score > 0.85
