"""What several commands' tests compare."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from ..conftest import Digits


@pytest.fixture(scope="session")
def recorded(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the Raspberry Pi's bundle answers to 330 digits, as a device would send it."""
    from edgecls.cli.main import main

    folder = tmp_path_factory.mktemp("recorded")
    for image in sorted(digits.judged.rglob("*.png"))[::3][:330]:
        target = folder / "data" / image.relative_to(digits.judged)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, target)
    arguments = ["predict", digits.bundle("raspberry-pi"), "--data", folder / "data",
                 "--save-logits", folder / "pi.logits"]  # fmt: skip
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    assert stop.value.code == 0
    return folder


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch as `--threads 1` has it, for what a test trains itself."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
