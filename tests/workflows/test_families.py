"""Whole exports of the standard families, with random statistics: no channel is dead."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from edgecls.bundle import Bundle
from edgecls.core.progress import Quiet
from edgecls.models import load_model
from edgecls.runtimes import load
from edgecls.workflows.export import export
from edgecls.workflows.export_options import ExportOptions

FAMILIES = [
    "cifar_resnet20",
    "timm:resnet18",
    "timm:mobilenetv2_100",
    "timm:tf_efficientnet_lite0",
    "torchvision:alexnet",
    pytest.param("torchvision:vgg11_bn", marks=pytest.mark.nightly),  # half a gigabyte of weights
    "timm:mobilenetv3_small_100",
    "timm:efficientnet_b0",
]


def alive(source: str, out: Path) -> Path:
    """Write weights whose batch norms do something, and whose activations stay moderate."""
    module = load_model(source).module
    assert module is not None
    generator = torch.Generator().manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            size = (layer.num_features,)
            layer.weight.data = torch.rand(size, generator=generator) * 0.5 + 0.75
            layer.bias.data = torch.randn(size, generator=generator) * 0.1
            layer.running_mean = torch.randn(size, generator=generator) * 0.1
            layer.running_var = torch.rand(size, generator=generator) + 0.5
    torch.save(module.state_dict(), out)
    return out


def photos(folder: Path, side: int, count: int = 16) -> Path:
    generator = np.random.default_rng(0)
    folder.mkdir()
    for index in range(count):
        blots = generator.integers(0, 256, (7, 7, 3), dtype=np.uint8)
        image = Image.fromarray(blots).resize((side, side), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        (folder / f"{index:02}.png").write_bytes(buffer.getvalue())
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("source", FAMILIES)
def test_a_family_becomes_bundles_in_int8(source: str, tmp_path: Path) -> None:
    images = photos(tmp_path / "images", 32 if source.startswith("cifar") else 256)
    export(
        ExportOptions(
            source=source,
            weights=alive(source, tmp_path / "weights.pth"),
            targets=("raspberry-pi", "desktop-gpu"),
            calib=images,
            out=tmp_path / "out",
        ),
        Quiet(),
    )
    pi, gpu = (Bundle(tmp_path / "out" / name) for name in ("raspberry-pi", "desktop-gpu"))

    assert pi.manifest.artefacts[0].left_float == ()
    assert gpu.manifest.artefacts[0].left_float == ()
    assert gpu.manifest.artefacts[0].quantized > 0
    assert [artefact.format for artefact in gpu.manifest.artefacts] == [
        "onnx", "onnx", "tensorrt-rtx",
    ]  # fmt: skip
    files = sorted(images.iterdir())
    answers = [
        np.array([p.logits for p in load(bundle, backend=name).predict_batch(files, logits=True)])
        for bundle, name in ((pi, "litert"), (gpu, "onnxruntime"))
    ]
    correlation = np.corrcoef(answers[0].ravel(), answers[1].ravel())[0, 1]
    assert correlation > 0.9, "two schemes of one table"


@pytest.mark.slow
def test_a_vision_transformer_keeps_only_its_norms_in_float(tmp_path: Path) -> None:
    images = photos(tmp_path / "images", 256, count=8)
    source = "timm:deit_tiny_patch16_224"
    export(
        ExportOptions(
            source=source,
            weights=alive(source, tmp_path / "weights.pth"),
            targets=("raspberry-pi", "jetson"),
            calib=images,
            out=tmp_path / "out",
        ),
        Quiet(),
    )
    artefact = Bundle(tmp_path / "out/raspberry-pi").manifest.artefacts[0]

    assert len(artefact.left_float) == 25
    assert all("norm" in name for name in artefact.left_float)
    assert artefact.quantized > 100
