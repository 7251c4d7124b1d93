"""CIFAR ResNet-20 as a torch module, for the tools that exchange a module's layers."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch
from job import Job


def network(job: Job) -> torch.nn.Module:
    """Return the network with its weights, in eval mode. Needs torch only, not edgecls."""
    path = Path(__file__).resolve().parents[2] / "models" / "cifar_resnet.py"
    spec = importlib.util.spec_from_file_location("cifar_resnet", path)
    assert spec is not None
    assert spec.loader is not None
    architecture = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(architecture)
    module: torch.nn.Module = architecture.CifarResNet(20)
    saved = torch.load(job.options["weights"], weights_only=True, map_location="cpu")
    module.load_state_dict(
        {name.removeprefix("module."): value for name, value in saved["state_dict"].items()}
    )
    return module.eval()


def images(job: Job) -> torch.Tensor:
    """Return the calibration images, normalised, (N, C, H, W) float32."""
    pixels = (np.load(job.pixels) / 255 - job.mean) / job.std
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32))


def export(module: torch.nn.Module, sample: torch.Tensor, path: Path) -> None:
    """Write an ONNX file with torch's TorchScript exporter."""
    torch.onnx.export(
        module, (sample,), path, dynamo=False, opset_version=17, input_names=["input"],
        output_names=["logits"], dynamic_axes={"input": {0: "batch"}, "logits": {0: "batch"}},
    )  # fmt: skip
