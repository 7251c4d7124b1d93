"""Whole classifiers, float and int8, against ONNX Runtime on the same graphs; no TRANSPOSE."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgecls.calibration.collect import collect_ranges
from edgecls.calibration.placement import place_qdq
from edgecls.core.torchvision_ops import import_timm, import_torchvision
from edgecls.core.values import relative_difference
from edgecls.export.passes import for_one_image, fuse
from edgecls.export.simplify import simplify
from edgecls.export.tflite import lower, try_in_subprocess
from edgecls.export.torch_onnx import TorchToOnnx
from edgecls.models.cifar_resnet import CifarResNet
from edgecls.models.lenet import LeNet5
from edgecls.targets.raspberry_pi import TARGET


def timm(name: str, **options) -> nn.Module:
    return import_timm().create_model(name, pretrained=False, **options)


def torchvision(name: str) -> nn.Module:
    return import_torchvision().models.get_model(name, weights=None)


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int]]] = {
    "lenet5": (LeNet5, (1, 28, 28)),
    "cifar_resnet20": (lambda: CifarResNet(20), (3, 32, 32)),
    "resnet18": (lambda: torchvision("resnet18"), (3, 96, 96)),
    "mobilenetv2_100": (lambda: timm("mobilenetv2_100"), (3, 96, 96)),
    "tf_efficientnet_lite0": (lambda: timm("tf_efficientnet_lite0"), (3, 96, 96)),
    "alexnet": (lambda: torchvision("alexnet"), (3, 224, 224)),
    "vgg11": (lambda: torchvision("vgg11"), (3, 224, 224)),
    "mobilenetv3_small_100": (lambda: timm("mobilenetv3_small_100"), (3, 96, 96)),
    "efficientnet_b0": (lambda: timm("efficientnet_b0"), (3, 96, 96)),
    "regnety_002": (lambda: timm("regnety_002"), (3, 96, 96)),
    "densenet121": (lambda: torchvision("densenet121"), (3, 96, 96)),
    "googlenet": (lambda: torchvision("googlenet"), (3, 96, 96)),
    "squeezenet1_1": (lambda: torchvision("squeezenet1_1"), (3, 96, 96)),
    "convnext_atto": (lambda: timm("convnext_atto"), (3, 96, 96)),
    "shufflenet_v2_x0_5": (lambda: torchvision("shufflenet_v2_x0_5"), (3, 96, 96)),
    "deit_tiny_patch16_224": (lambda: timm("deit_tiny_patch16_224", img_size=96), (3, 96, 96)),
    "swin_tiny_patch4_window7_224": (lambda: timm("swin_tiny_patch4_window7_224"), (3, 224, 224)),
    "mobilevit_xxs": (lambda: timm("mobilevit_xxs"), (3, 96, 96)),
}
QUICK = ("lenet5", "cifar_resnet20")
PROMISED = (
    "lenet5", "cifar_resnet20", "resnet18", "mobilenetv2_100", "tf_efficientnet_lite0", "alexnet",
    "vgg11",
)  # fmt: skip
# Channel shuffles and attention move values in any layout.
TRANSPOSING = {
    "shufflenet_v2_x0_5", "deit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "mobilevit_xxs",
}  # fmt: skip
# One or two of each family; together under five minutes.
REPRESENTATIVE = (
    "mobilenetv3_small_100", "efficientnet_b0", "regnety_002", "densenet121", "googlenet",
    "squeezenet1_1", "shufflenet_v2_x0_5", "convnext_atto", "deit_tiny_patch16_224",
    "mobilevit_xxs",
)  # fmt: skip
NORMALIZING = {"convnext_atto", "deit_tiny_patch16_224", "mobilevit_xxs"}


def names(chosen=MODELS):
    return [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in chosen
    ]


@cache
def exported(name: str) -> onnx.ModelProto:
    """Return a classifier with random weights, none of them dead."""
    torch.manual_seed(0)
    build, size = MODELS[name]
    module = build().eval()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.2)
            part.running_mean.normal_(0, 0.2)
            part.running_var.uniform_(0.5, 1.5)
    return simplify(TorchToOnnx(input_size=size)(module))


def images(name: str, count: int = 3) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.standard_normal((count, *MODELS[name][1])).astype(np.float32)


def quantized(model: onnx.ModelProto, data: np.ndarray) -> onnx.ModelProto:
    named = ((hashlib.sha256(image.tobytes()).hexdigest(), image[None]) for image in data)
    table = collect_ranges(model, named, method="minmax", seed=0)
    return place_qdq(model, table, TARGET.scheme).model


@pytest.mark.parametrize("name", names())
def test_float(lab, name):
    model, data = exported(name), images(name)

    lowered = lower(model)

    (expected,) = lab.onnx(model, data)
    assert relative_difference(expected, lab.tflite(lowered, data)) <= 1e-5
    assert lowered.transposes == 0 or name in TRANSPOSING


@pytest.mark.parametrize("name", names(PROMISED))
def test_int8(lab, name):
    data = images(name)
    model = quantized(exported(name), data)

    lowered = lower(model)

    assert (lowered.input.dtype, lowered.output.dtype) == ("int8", "int8")
    assert lowered.left_float == ()
    assert lowered.transposes == 0
    try_in_subprocess(lowered.data)
    difference = lab.steps(model, lowered, data)
    # Deep networks of random weights amplify the half steps in which honest kernels differ: ONNX
    # Runtime's own optimised kernels are as far from its plain ones.
    other = lab.steps_of_optimised(model, lowered, data)
    assert difference.mean() <= max(0.1, 1.5 * other.mean())
    assert np.quantile(difference, 0.99) <= max(1, np.quantile(other, 0.99) + 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_int8_operator_by_operator(name, compare_layers):
    """Each operator is fed what LiteRT fed its own: deep random networks amplify a step."""
    data = images(name)
    model = quantized(for_one_image(fuse(exported(name))), data)

    lowered = lower(model)

    left = {node.op_type for node in model.graph.node if node.name in lowered.left_float}
    assert left == ({"LayerNormalization"} if name in NORMALIZING else set())
    layers = compare_layers(model, lowered, data[:1])
    steps = np.concatenate([layer.steps.ravel() for layer in layers])
    assert len(layers) > 10
    assert (steps <= 1).mean() >= 0.999
    assert steps.max() <= 2


@pytest.mark.slow
def test_efficientnet_lite0_with_real_weights_on_photos(lab, edgecls_data):
    """Float as ONNX Runtime, int8 as far from its Q/DQ graph as its own kernels are."""
    from PIL import Image

    module = timm("tf_efficientnet_lite0").eval()
    weights = torch.load(
        edgecls_data / "weights" / "efficientnet-lite0-57934424.pth", weights_only=True
    )
    keys = [key for key in module.state_dict() if "num_batches_tracked" not in key]
    values = [value for key, value in weights.items() if "num_batches_tracked" not in key]
    module.load_state_dict(dict(zip(keys, values, strict=True)), strict=False)
    model = simplify(TorchToOnnx(input_size=(3, 224, 224))(module))
    files = sorted((edgecls_data / "imagenet500").glob("*/*.*"))[::25]
    photos = [Image.open(file).convert("RGB").resize((224, 224)) for file in files]
    data = np.stack([(np.asarray(p, np.float32) - 127) / 128 for p in photos])
    data = np.ascontiguousarray(data.transpose(0, 3, 1, 2))

    lowered = lower(model)
    (expected,) = lab.onnx(model, data)
    assert relative_difference(expected, lab.tflite(lowered, data)) <= 1e-5

    graph = quantized(model, data)
    lowered = lower(graph)
    (simulated,) = lab.onnx(graph, data)
    found = lab.tflite(lowered, data)

    assert lowered.left_float == ()
    assert len(lowered.data) <= 5.5e6
    assert (found.argmax(axis=1) == simulated.argmax(axis=1)).mean() >= 0.95
    difference = lab.steps(graph, lowered, data)
    other = lab.steps_of_optimised(graph, lowered, data)
    assert difference.mean() <= max(0.1, 1.2 * other.mean())
