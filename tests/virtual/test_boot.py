"""The whole virtual machine: kernel, root file system, Python, LiteRT, an answer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgecls.data.images import list_images
from edgecls.devices.virtual import VirtualPi
from edgecls.runtimes import load

from .boot import boot

if TYPE_CHECKING:
    from ..conftest import Digits

PACKAGE = Path(__file__).parents[2]


@pytest.mark.nightly
def test_a_whole_machine_boots_verifies_and_predicts(
    pi: VirtualPi, digits: Digits, tmp_path: Path
) -> None:
    for tool in ("qemu-system-aarch64", "cpio"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    image = list_images(digits.judged)[0]
    (tmp_path / "images").mkdir()
    shutil.copy(image.path, tmp_path / "images" / "digit.png")
    app = tmp_path / "app"
    rooms = ("core", "targets", "bundle", "runtimes", "devices", "data", "cli")
    for room in rooms:
        shutil.copytree(PACKAGE / room, app / "edgecls" / room)
    for file in ("__init__.py", "__main__.py"):
        shutil.copy(PACKAGE / file, app / "edgecls" / file)
    files = {"app": app, "bundle": digits.bundle("raspberry-pi"), "images": tmp_path / "images"}
    script = (
        'edgecls() { python3 -m edgecls "$@"; }; '
        "edgecls verify /bundle && edgecls predict /bundle /images/digit.png --json && uname -m"
    )
    code, console = boot(pi, ["/bin/sh", "-c", script], files)

    assert code == 0, console[-4000:]
    (line,) = [line for line in console.splitlines() if line.startswith('{"image"')]
    found = json.loads(line)["topk"]
    expected = load(digits.bundle("raspberry-pi")).predict(image.path).to_dict()["topk"]
    assert found == json.loads(json.dumps(expected))
    assert "aarch64" in console.splitlines()
