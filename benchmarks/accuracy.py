"""What each conversion costs on real data, beside ONNX Runtime's own quantizer in the same run.

    EDGECLS_DATA=... python benchmarks/accuracy.py [lite0] [resnet20]

EfficientNet-Lite0: 100 photos calibrate, the other 400 judge. CIFAR ResNet-20: 200 of the training
images calibrate, the 1,000 test images judge. Point estimates: one photo of 400 is 0.25 points.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from common import cifar_folder, data_folder, edgecls, machine, split, table, work_folder
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from edgecls.bundle import Bundle
from edgecls.data.images import list_images
from edgecls.data.labels import Labels, read_labels
from edgecls.data.stream import stream_pixels
from edgecls.data.truth import match_truth

TARGETS = ("raspberry-pi", "jetson", "desktop-gpu")


@dataclass(frozen=True)
class Case:
    """A model with the images that calibrate and judge it."""

    title: str
    model: str
    weights: Path
    calibration: Path
    judged: Path
    count: int
    labels: Path | None


def cases(names: list[str], data: Path, work: Path) -> Iterator[Case]:
    """Yield what was asked for, or all."""
    if not names or "lite0" in names:
        calibration, judged = split(data / "imagenet500", work / "photos", 100)
        yield Case(
            "EfficientNet-Lite0", "timm:tf_efficientnet_lite0",
            data / "weights" / "efficientnet-lite0-57934424.pth", calibration, judged, 100,
            data / "imagenet_classes.json",
        )  # fmt: skip
    if not names or "resnet20" in names:
        yield Case(
            "CIFAR ResNet-20", "cifar_resnet20", data / "weights" / "resnet20-12fca82f.th",
            cifar_folder(data, "dev_train5000", work), cifar_folder(data, "dev_test1000", work),
            200, data / "cifar10" / "classes.json",
        )  # fmt: skip


def main() -> None:
    """Print one table per model."""
    logging.disable(logging.WARNING)
    data = data_folder()
    print(f"{machine()}\n")
    with work_folder() as folder:
        for case in cases(sys.argv[1:], data, Path(folder)):
            report(case, Path(folder) / case.model.replace(":", "_"))


def report(case: Case, out: Path) -> None:
    """Export, judge every bundle, and print."""
    targets = [part for target in TARGETS for part in ("--target", target)]
    labels = ["--labels", case.labels] if case.labels else []
    made = edgecls(
        "export", case.model, "--weights", case.weights, "--calib", case.calibration,
        "--calib-images", case.count, *labels, *targets, "--keep-graphs", out / "graphs", "-o", out,
    )  # fmt: skip
    rows: list[list[str]] = []
    for target, backend in (("raspberry-pi", "litert"), ("jetson", "onnxruntime")):
        bundle = out / target
        drifted = edgecls(
            "drift", bundle, "--reference", case.model, "--weights", case.weights, "--data",
            case.judged, "--backend", backend, codes=(0, 1, 5),
        )  # fmt: skip
        summary: Any = drifted.found["summary"]
        if not rows:
            rows.append(["torch, float32", _points(summary["reference_top1"]), "", "", ""])
        manifest = Bundle(bundle).manifest
        size = manifest.files[manifest.artefacts[0].path].size_bytes
        name = f"{target} int8 ({'LiteRT' if backend == 'litert' else 'simulated'})"
        difference = _difference(drifted.found)
        rows.append([name, _points(summary["candidate_top1"]), _points(summary["agreement"]),
                     f"{size / 1e6:.2f} MB", difference])  # fmt: skip
    rows += peers(case, out)
    print(f"## {case.title}, {len(list_images(case.judged))} images\n")
    print(table(("", "top-1", "agrees with float32", "size", "mean logit difference"), rows))
    stages: Any = made.found["seconds"]
    print(f"\nexport for three targets: {made.seconds:.1f} s, peak {made.peak_bytes / 1e6:.0f} MB:")
    print(", ".join(f"{stage} {value:.1f} s" for stage, value in stages.items()) + "\n")


def peers(case: Case, out: Path) -> list[list[str]]:
    """Quantize the same float graph with ONNX Runtime's quantizer and judge it."""
    bundle = Bundle(out / "jetson").manifest
    shape = bundle.artefacts[0].input.shape
    size = (int(shape[2] or 0), int(shape[3] or 0))
    prepared = out / "peer.onnx"
    quant_pre_process(out / "graphs" / "float.onnx", prepared, skip_symbolic_shape=True)

    def tensors(folder: Path) -> Iterator[tuple[str, NDArray[np.float32]]]:
        for batch in stream_pixels(list_images(folder), bundle.preprocess, size=size):
            for image, pixels in zip(batch.images, batch.pixels, strict=True):
                yield image.name, bundle.preprocess.normalize(pixels[None])

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.images = iter(list(tensors(case.calibration))[: case.count])

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            found = next(self.images, None)
            return None if found is None else {"input": found[1]}

    judged = list_images(case.judged)
    labels = Labels(names=bundle.labels, synsets=bundle.synsets) if bundle.labels else None
    if case.labels is not None:
        labels = read_labels(case.labels)
    truth = match_truth(judged, num_classes=bundle.num_classes, labels=labels)
    assert truth is not None
    wanted = truth.of(judged)
    expected = _run(out / "graphs" / "float.onnx", tensors(case.judged), optimise=True)
    rows = []
    for name, symmetric in (("symmetric", True), ("asymmetric", False)):
        file = out / f"peer.{name}.onnx"
        quantize_static(
            prepared, file, Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QInt8, weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"ActivationSymmetric": symmetric, "WeightSymmetric": True},
        )  # fmt: skip
        found = _run(file, tensors(case.judged), optimise=False)
        top1 = 100 * float(np.mean(found.argmax(1) == wanted))
        agrees = 100 * float(np.mean(found.argmax(1) == expected.argmax(1)))
        rows.append([f"ONNX Runtime's, {name} (simulated)", _points(top1), _points(agrees),
                     f"{file.stat().st_size / 1e6:.2f} MB",
                     f"{np.abs(found - expected).mean():.4f}"])  # fmt: skip
    return rows


def _run(
    file: Path, tensors: Iterator[tuple[str, NDArray[np.float32]]], *, optimise: bool
) -> NDArray[np.float32]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"input": tensor})[0] for _, tensor in tensors])


def _points(value: float) -> str:
    return f"{value:.2f} %"


def _difference(found: dict[str, Any]) -> str:
    return f"{found['metrics']['differences']['mean']:.4f}"


if __name__ == "__main__":
    main()
