"""The networks of ``quantized_graphs.py``: CIFAR ResNet-20, and two with random weights."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from common import cifar_folder, split
from precisions import as_toml

from edgecls.core.preprocess import PRESETS, Preprocess
from edgecls.core.torchvision_ops import import_timm, import_torchvision
from edgecls.core.values import Pixels
from edgecls.data.images import ImageFile, list_images, select_images
from edgecls.data.stream import stream_pixels
from edgecls.data.truth import match_truth
from edgecls.models import load_model

CALIBRATION: Final = 60
PHOTOS: Final = 200
SIDE_PX: Final = 96
RANDOM: Final = {"vit-tiny": "ViT-Tiny, 96 px", "mobilenet-v2": "MobileNetV2, 96 px"}


@dataclass(frozen=True)
class Case:
    """A network that is ready to be quantized.

    Attributes:
        title: Of the table.
        job: What every adapter is told.
        preprocess: As ``--preprocess`` takes it.
        calibration: The folder that ``--calib`` takes.
        tensors: The judging images, (N, C, H, W) float32.
        pixels: The same, (N, H, W, C) uint8.
        truth: Their classes, where the weights are real.
        folder: Where all of it lies.
    """

    title: str
    job: dict[str, Any]
    preprocess: Path
    calibration: Path
    tensors: np.ndarray
    pixels: Pixels
    truth: Sequence[int] | None
    folder: Path


def prepare(name: str, data: Path, folder: Path) -> Case:
    """Write a network as a float ONNX graph and as a torch program, with its images."""
    folder.mkdir(parents=True)
    options: dict[str, str] = {}
    truth: Sequence[int] | None = None
    if name == "resnet20":
        title, preprocess = "CIFAR ResNet-20", PRESETS["cifar10"]
        (weights,) = (data / "weights").glob("resnet20-*.th")
        module = load_model("cifar_resnet20", weights=weights).module
        assert module is not None
        options["weights"] = str(weights)
        size = (3, 32, 32)
        calibration = cifar_folder(data, "dev_train5000", folder)
        files = list_images(cifar_folder(data, "dev_test1000", folder))
        found = match_truth(files, num_classes=10)
        assert found is not None
        truth = found.of(files)
    else:
        title, preprocess = RANDOM[name], Preprocess(resize=SIDE_PX, crop=SIDE_PX)
        size = (3, SIDE_PX, SIDE_PX)
        calibration, judged = split(data / "imagenet500", folder / "photos", CALIBRATION)
        files = select_images(list_images(judged), PHOTOS, 0)
        module = _random(name)
    chosen = select_images(list_images(calibration), CALIBRATION, 0)
    pixels = _pixels(chosen, preprocess, size)
    if truth is None:
        _settle(module, torch.from_numpy(preprocess.normalize(pixels)))
    np.save(folder / "calibration.npy", pixels)
    described = folder / "preprocess.toml"
    described.write_text(as_toml(preprocess))
    _write(module, size, folder)
    job = {
        "model": str(folder / "model.pt2"), "onnx": str(folder / "float.onnx"),
        "pixels": str(folder / "calibration.npy"), "size": size, "precision": "int8",
        "mean": preprocess.mean, "std": preprocess.std, "options": options,
    }  # fmt: skip
    pixels = _pixels(files, preprocess, size)
    tensors = preprocess.normalize(pixels)
    return Case(title, job, described, calibration, tensors, pixels, truth, folder)


def run_adapter(
    case: Case, command: Sequence[object], out: Path, options: dict[str, Any],
    environ: dict[str, str], timeout_s: float,
) -> dict[str, Any]:  # fmt: skip
    """Run an adapter; return its one file, or {"error": why}. Its output goes to ``out``."""
    out.mkdir()
    told = {**case.job, "options": {**case.job["options"], **options}, "out": str(out)}
    (out / "job.json").write_text(json.dumps(told))
    with (out / "log.txt").open("w") as log:
        try:
            done = subprocess.run(
                [*map(str, command), str(out / "job.json")], stdout=log, stderr=log,
                timeout=timeout_s, cwd=out, env=environ, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return {"error": f"no end after {timeout_s} s"}
    result = out / "result.json"
    if not result.is_file():
        return {"error": f"no result, exit status {done.returncode}"}
    found: dict[str, Any] = json.loads(result.read_text())["files"][0]
    return found


def _random(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    if name == "vit-tiny":
        module: torch.nn.Module = import_timm().create_model(
            "vit_tiny_patch16_224", img_size=SIDE_PX
        )
    else:
        module = import_torchvision().models.mobilenet_v2(weights=None)
    return module.eval()


def _settle(module: torch.nn.Module, images: torch.Tensor) -> None:
    """Give a random network statistics of its own, and answers that depend on the image.

    With batch norm as it starts, the signal of an untrained network dies on its way. And untrained
    logits are nearly the same for every image: one class would answer all of them, and top-1 would
    agree whatever the quantization does; so the head's bias takes their mean away.
    """
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = 1.0
                layer.train()
        module(images)
        module.eval()
        head = [layer for layer in module.modules() if isinstance(layer, torch.nn.Linear)][-1]
        head.bias -= module(images).mean(0)


def _pixels(files: Sequence[ImageFile], preprocess: Preprocess, size: tuple[int, ...]) -> Pixels:
    stream = stream_pixels(files, preprocess, size=(size[1], size[2]))
    return np.concatenate([batch.stack() for batch in stream])


def _write(module: torch.nn.Module, size: tuple[int, ...], folder: Path) -> None:
    sample = torch.zeros(1, *size)
    torch.export.save(torch.export.export(module, (sample,)), folder / "model.pt2")
    # The exporter and the opset that most quantized graphs in use were made with; GELU is Erf.
    torch.onnx.export(
        module, (sample,), folder / "float.onnx", dynamo=False, opset_version=17,
        input_names=["input"], output_names=["logits"],
        dynamic_axes={"input": {0: "batch"}, "logits": {0: "batch"}},
    )  # fmt: skip
