"""Networks for 32x32 images that no zoo has by name: what ``module:callable`` is for."""

from __future__ import annotations

import torch
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


class SqueezeExcite(nn.Module):
    """Scales each channel by what the image as a whole says of it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, channels // 4, 1)
        self.expand = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x`` scaled, of its shape."""
        scale = self.reduce(x.mean((2, 3), keepdim=True)).relu()
        return x * self.expand(scale).sigmoid()


class Inverted(nn.Module):
    """An inverted residual: expanded, convolved channel by channel, excited, projected."""

    def __init__(
        self, before: int, after: int, stride: int, act: type[nn.Module], excite: bool
    ) -> None:
        super().__init__()
        wide = 4 * before
        self.adds = before == after and stride == 1
        self.body = nn.Sequential(
            nn.Conv2d(before, wide, 1, bias=False), nn.BatchNorm2d(wide), act(),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False),
            nn.BatchNorm2d(wide), act(),
            SqueezeExcite(wide) if excite else nn.Identity(),
            nn.Conv2d(wide, after, 1, bias=False), nn.BatchNorm2d(after),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, after, H / stride, W / stride)."""
        found: torch.Tensor = self.body(x)
        return x + found if self.adds else found


def _inverted(num_classes: int, act: type[nn.Module], excite: bool) -> nn.Module:
    blocks: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), act()]
    before = 16
    for after, stride in ((16, 1), (24, 2), (24, 1), (40, 2), (40, 1)):
        blocks.append(Inverted(before, after, stride, act, excite))
        before = after
    head = [nn.Conv2d(before, 160, 1, bias=False), nn.BatchNorm2d(160), act()]
    return nn.Sequential(
        *blocks, *head, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(160, num_classes)
    )


def mobile_silu(num_classes: int = 10) -> nn.Module:
    """Five inverted residuals with SiLU and squeeze-and-excite."""
    return _inverted(num_classes, nn.SiLU, excite=True)


def mobile_relu(num_classes: int = 10) -> nn.Module:
    """Five inverted residuals with ReLU: what can be equalized across layers."""
    return _inverted(num_classes, nn.ReLU, excite=False)


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, tokens, width) from the same."""
        many, tokens, width = x.shape
        parts = self.qkv(x).reshape(many, tokens, 3, self.heads, width // self.heads)
        queries, keys, values = parts.permute(2, 0, 3, 1, 4).unbind(0)
        found = nn.functional.scaled_dot_product_attention(queries, keys, values)
        return self.project(found.transpose(1, 2).reshape(many, tokens, width))


class Block(nn.Module):
    """Attention and a perceptron, each on normalised tokens and added to what it read."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attend = nn.Sequential(nn.LayerNorm(width), Attention(width, heads))
        self.think = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(),
            nn.Linear(4 * width, width),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, tokens, width) from the same."""
        x = x + self.attend(x)
        return x + self.think(x)


class VisionTransformer(nn.Module):
    """Patches of 4x4 pixels as tokens, blocks, the mean of what comes out (Dosovitskiy 2020)."""

    def __init__(self, width: int, heads: int, depth: int, num_classes: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.places = nn.Parameter(0.02 * torch.randn(1, 64, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, num_classes) from (N, 3, 32, 32)."""
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.places
        return self.head(self.norm(self.blocks(tokens)).mean(1))


def vit(num_classes: int = 10) -> nn.Module:
    """A vision transformer of four blocks on 64 tokens."""
    return VisionTransformer(width=96, heads=3, depth=4, num_classes=num_classes)
