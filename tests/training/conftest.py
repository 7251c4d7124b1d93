"""A tiny problem that a tiny model learns in a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from edgecls.core.preprocess import Preprocess
from edgecls.data.dataset import Dataset
from edgecls.training import Fit, Settings, in_memory

PLAIN = Preprocess(resize=0, crop=0, mean=(0.5,) * 3, std=(0.25,) * 3)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def stripes(count: int, seed: int = 0) -> Dataset:
    """Noise with a bright row, column or neither: three classes of 8x8 px."""
    draw = np.random.default_rng(seed)
    pixels = draw.integers(0, 120, (count, 8, 8, 3), np.uint8)
    labels = np.arange(count) % 3
    for image, label, at in zip(pixels, labels, draw.integers(0, 8, count), strict=True):
        if label:
            image[(at, slice(None)) if label == 1 else (slice(None), at)] += 120
    return Dataset(name="stripes", classes=("none", "row", "column"), labels=labels, pixels=pixels)


def make_tiny(*, norm: bool = True, dropout: float = 0.2) -> torch.nn.Sequential:
    """Convolution, norm, dropout: all that a resumed training could get wrong."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, padding=1),
            torch.nn.BatchNorm2d(8) if norm else torch.nn.Identity(),
            torch.nn.ReLU(),
            torch.nn.AdaptiveMaxPool2d(2),
            torch.nn.Flatten(),
            torch.nn.Dropout(dropout),
            torch.nn.Linear(32, 3),
        )


@pytest.fixture
def tiny() -> Callable[..., torch.nn.Sequential]:
    return make_tiny


@pytest.fixture
def unseen() -> tuple[np.ndarray, np.ndarray]:
    """What the tiny problem is judged by: images as tensors, and classes."""
    found = stripes(60, seed=1)
    assert found.pixels is not None
    return PLAIN.normalize(found.pixels), found.labels


Make = Callable[..., Fit]


@pytest.fixture
def make_fit(unseen: tuple[np.ndarray, np.ndarray]) -> Make:
    """Return a training of the tiny problem."""
    seen = stripes(96)

    def make(settings: Settings, out: Path | None = None, **arguments: object) -> Fit:
        train, steps = in_memory(seen, PLAIN, settings)
        fields = {
            "identity": {"model": "tiny"},
            "val": lambda: [unseen],
            "train": train,
            **arguments,
        }
        return Fit(settings=settings, steps_per_epoch=steps, out=out, **fields)  # type: ignore[arg-type]

    return make
