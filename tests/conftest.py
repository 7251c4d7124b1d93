"""Fixtures for every room's tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from edgecls.workflows.demo import DemoResult

# Loaded machines make time limits meaningless; CI tries the same examples every time; an emulated
# machine few of them.
settings.register_profile(
    "edgecls",
    deadline=None,
    derandomize="CI" in os.environ,
    max_examples=int(os.environ.get("EDGECLS_EXAMPLES", "100")),
)
settings.load_profile("edgecls")


@pytest.fixture(scope="session")
def edgecls_data() -> Path:
    """The folder of real photos and weights; tests that use it are skipped where it is absent."""
    value = os.environ.get("EDGECLS_DATA", "")
    if not value:
        pytest.skip("EDGECLS_DATA is not set")
    path = Path(value).resolve()
    assert path.is_dir(), f"EDGECLS_DATA={value} is no folder"
    return path


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    """LeNet-5 trained on real digits and exported for every target: the demonstration, once."""
    from edgecls.core.progress import Quiet
    from edgecls.workflows.demo import demo

    out = tmp_path_factory.mktemp("digits")
    return Digits(root=out, result=demo(out, Quiet()))


@dataclass(frozen=True)
class Digits:
    """The demonstration's folder and what it found."""

    root: Path
    result: DemoResult

    @property
    def weights(self) -> Path:
        return self.root / "lenet5.safetensors"

    @property
    def train(self) -> Path:
        return self.root / "data" / "train"

    @property
    def judged(self) -> Path:
        return self.root / "data" / "judged"

    def bundle(self, target: str) -> Path:
        return self.root / "bundles" / target


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as a release ships it, built from a copy: a build writes beside its sources."""
    out = tmp_path_factory.mktemp("wheel")
    skipped = shutil.ignore_patterns(".*", "build", "tests", "*.egg-info")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "edgecls"
        shutil.copytree(Path(__file__).parents[1], source, ignore=skipped)
        command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", out, source]
        subprocess.run(command, check=True)
    (built,) = out.iterdir()
    return built


Command = Callable[..., "Done"]


@dataclass(frozen=True)
class Done:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def edgecls(capfd: pytest.CaptureFixture[str]) -> Command:
    """Run the command line in this process."""
    from edgecls.cli.main import main

    def run(*arguments: object) -> Done:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        printed = capfd.readouterr()
        code = stop.value.code
        assert isinstance(code, int)
        return Done(code=code, out=printed.out, err=printed.err)

    return run
