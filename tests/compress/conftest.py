"""Small nets with every way in which channels depend on each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

SIZE = (3, 8, 8)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def conv(inputs: int, outputs: int, **more: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False, **more), nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )  # fmt: skip


class Plain(nn.Module):
    """Two convolutions, a flattened map of 2x2, two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = conv(3, 8), conv(8, 6)
        self.pool = nn.AdaptiveMaxPool2d(2)
        self.hidden, self.head = nn.Linear(24, 10), nn.Linear(10, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.two(self.one(x))).flatten(1)
        return self.head(torch.relu(self.hidden(x)))


class Residual(nn.Module):
    """A sum, a concatenation, a depthwise convolution and a squeeze-and-excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner = conv(3, 8), conv(8, 8)
        self.side = conv(8, 4)
        self.depthwise = conv(12, 12, groups=12)
        self.squeeze, self.excite = nn.Conv2d(12, 4, 1), nn.Conv2d(4, 12, 1)
        self.head = nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.inner(x)
        x = self.depthwise(torch.cat([self.side(x), x], 1))
        gate = self.excite(torch.relu(self.squeeze(x.mean((2, 3), keepdim=True))))
        return self.head((x * torch.sigmoid(gate)).mean((2, 3)))


class Padded(nn.Module):
    """An option-A shortcut: every second pixel, zeros for the channels that are new."""

    def __init__(self, *, inner: bool) -> None:
        super().__init__()
        self.stem = conv(3, 4)
        self.inner = conv(4, 6) if inner else nn.Identity()
        self.wide = nn.Conv2d(6 if inner else 4, 8, 3, stride=2, padding=1)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        short = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        return self.head(torch.relu(self.wide(self.inner(x)) + short).mean((2, 3)))


def seeded(make: Callable[..., nn.Module], **arguments: bool) -> nn.Module:
    """Build a net whose norms have learned something: nothing is 0 or 1 by chance."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = make(**arguments)
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                for value in (part.weight, part.running_var):
                    nn.init.uniform_(value, 0.5, 2.0)
                for value in (part.bias, part.running_mean):
                    nn.init.normal_(value)
    return module.eval()


def images(count: int = 4) -> torch.Tensor:
    return torch.randn((count, *SIZE), generator=torch.Generator().manual_seed(1))
