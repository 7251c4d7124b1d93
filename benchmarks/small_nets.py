"""A network for 32x32 images that no zoo has by name: what ``module:callable`` is for."""

from __future__ import annotations

from torch import nn


def vgg(num_classes: int = 10) -> nn.Module:
    """Six 3x3 convolutions with batch norm, three poolings and one product, as VGG has them."""
    layers: list[nn.Module] = []
    channels_in = 3
    for channels in (32, 64, 128):
        for _ in range(2):
            layers += [
                nn.Conv2d(channels_in, channels, 3, padding=1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(inplace=True),
            ]
            channels_in = channels
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, num_classes)
    )
