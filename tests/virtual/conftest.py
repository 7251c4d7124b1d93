"""Virtual Raspberry Pis, made once on a machine and then kept in the user's cache."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgecls.core.progress import Quiet
from edgecls.devices.virtual import VirtualPi, create

ROOT = Path(__file__).parents[2]

# What the device half's tests import.
TEST_WHEELS = ("flatbuffers", "hypothesis", "pytest", "pytest-timeout")


def pi_of(board: str, release: str) -> VirtualPi:
    """Return a Pi with what tests need; skip where none can be made."""
    for tool in ("qemu-aarch64-static", "apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    return create(
        board, Quiet(), release_name=release, name=f"test-{board}-{release}", wheels=TEST_WHEELS,
        constraint=ROOT / "constraints.txt",
    )  # fmt: skip


@pytest.fixture(scope="session")
def pi5() -> VirtualPi:
    return pi_of("pi5", "trixie")


@pytest.fixture(scope="session")
def pi4() -> VirtualPi:
    return pi_of("pi4", "bookworm")


@pytest.fixture(params=["pi5", "pi4"])
def pi(request: pytest.FixtureRequest) -> VirtualPi:
    found: VirtualPi = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=["pi5", pytest.param("pi4", marks=pytest.mark.nightly)])
def patient_pi(request: pytest.FixtureRequest) -> VirtualPi:
    """For what takes minutes: the older board's turn is at night."""
    found: VirtualPi = request.getfixturevalue(request.param)
    return found
