"""A small network for 32x32 RGB images; torch loads it by its name, as a user's own model."""

from __future__ import annotations

from torch import nn


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def signs() -> nn.Sequential:
    return nn.Sequential(
        _block(3, 12, 2),
        _block(12, 16, 2),
        _block(16, 24, 1),
        _block(24, 32, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 8),
    )
