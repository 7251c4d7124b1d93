"""Which classifiers can be built by name, and what each costs."""

from __future__ import annotations

import difflib
import fnmatch
from dataclasses import dataclass
from typing import Final

import torch

from ..core.errors import ModelError
from ..core.torchvision_ops import import_timm, import_torchvision
from .cost import Cost, model_cost
from .load import OWN, build

FAMILIES: Final[dict[str, tuple[str, ...]]] = {
    "LeNet": ("lenet5",),
    "CIFAR ResNet": ("cifar_resnet20", "cifar_resnet32", "cifar_resnet44", "cifar_resnet56"),
    "AlexNet": ("torchvision:alexnet",),
    "VGG": ("torchvision:vgg11_bn", "torchvision:vgg16", "torchvision:vgg16_bn"),
    "ResNet": (
        "timm:resnet18", "timm:resnet34", "timm:resnet50", "timm:resnet101",
    ),
    "MobileNet": (
        "timm:mobilenetv2_100", "timm:mobilenetv3_small_100", "timm:mobilenetv3_large_100",
        "timm:mobilenetv4_conv_small",
    ),
    "EfficientNet-Lite": ("timm:tf_efficientnet_lite0", "timm:tf_efficientnet_lite4"),
    "EfficientNet": (
        "timm:efficientnet_b0", "timm:efficientnet_b3", "timm:tf_efficientnetv2_s",
    ),
    "ViT": (
        "timm:vit_tiny_patch16_224", "timm:vit_small_patch16_224", "timm:vit_base_patch16_224",
        "timm:deit_tiny_patch16_224",
    ),
}  # fmt: skip
"""What an edge engineer starts from; ``find_models`` knows all others too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An architecture.

    Attributes:
        source: What ``load_model`` and the commands take.
        family: Of ``FAMILIES``, or the zoo that it comes from.
        input_size: (C, H, W) of the images that it was designed for.
        num_classes: Of its own head.
        cost: At that size, with that head.
    """

    source: str
    family: str
    input_size: tuple[int, int, int]
    num_classes: int
    cost: Cost


def find_models(pattern: str | None = None) -> tuple[str, ...]:
    """Return the sources that match: those of ``FAMILIES`` without a pattern.

    Args:
        pattern: A part of a name, or a pattern with ``*`` and ``?`` for all of it.

    Raises:
        ModelError: Nothing matches.
        MissingPackageError: timm or torchvision is not installed.
    """
    if pattern is None:
        return tuple(name for names in FAMILIES.values() for name in names)
    models = import_torchvision().models
    every = [
        *OWN,
        *(f"timm:{name}" for name in import_timm().list_models()),
        *(f"torchvision:{name}" for name in models.list_models(module=models)),
    ]
    wild = any(letter in pattern for letter in "*?[")
    wanted = pattern if wild else f"*{pattern}*"
    alternatives = (wanted, f"*:{wanted}")
    found = [name for name in every if any(fnmatch.fnmatch(name, one) for one in alternatives)]
    if not found:
        short = {name.rpartition(":")[2]: name for name in every}
        close = difflib.get_close_matches(pattern.rpartition(":")[2], short, n=3, cutoff=0.6)
        hint = f"did you mean {', '.join(short[name] for name in close)}?" if close else "see '*'"
        raise ModelError(f"no model matches {pattern!r} among {len(every)}; {hint}")
    return tuple(found)


def describe(source: str) -> Entry:
    """Return what an architecture costs; no memory is taken for its weights.

    Raises:
        ModelError: It cannot be built, or says neither its input's size nor its classes.
        MissingPackageError: timm or torchvision is not installed.
    """
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        built = build(source, None)
    if built.input_size is None or built.num_classes is None:
        raise ModelError(f"{source} says neither its input's size nor its number of classes")
    family = next((name for name, names in FAMILIES.items() if source in names), "")
    return Entry(
        source=source,
        family=family or source.partition(":")[0],
        input_size=built.input_size,
        num_classes=built.num_classes,
        cost=model_cost(built.module, built.input_size),
    )
