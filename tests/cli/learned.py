"""Digits in folders and a LeNet that learned from them, as several commands need them."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecls.cli.main import main
from edgecls.data.mnist import mnist_5k, write_image_folder

NAMES = tuple(f"digit {number}" for number in range(10))


def write_digits(root: Path, **parts: slice) -> None:
    """Write some of the 5,000 digits, ROOT/PART/CLASS/IMAGE."""
    images, labels = mnist_5k()
    for name, chosen in parts.items():
        write_image_folder(images[chosen], labels[chosen], root / name, NAMES)


def train_lenet(root: Path, data: str, out: str) -> None:
    """Train for three epochs on ROOT/DATA, judged by ROOT/val, into ROOT/OUT."""
    with pytest.raises(SystemExit) as stop:
        main(
            ["train", "lenet5", "--data", str(root / data), "--val", str(root / "val"),
             "--epochs", "3", "--augment", "none", "--threads", "1", "-o", str(root / out)]
        )  # fmt: skip
    assert stop.value.code == 0
