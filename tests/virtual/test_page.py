"""docs/raspberry-pi.md, line by line, as a newcomer types it."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgecls.data.images import list_images
from edgecls.devices.virtual import VirtualPi
from edgecls.devices.virtual.debian import MIRROR_VARIABLE
from edgecls.runtimes import load

from .fresh import FreshPi, why_not

if TYPE_CHECKING:
    from ..conftest import Digits

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "raspberry-pi.md"
UNIT = "edgecls-camera.service"

BOARD = re.compile(r"^(.*?)\s+# needs the board$")
PACKAGES = "sudo apt-get install "

# What nobody has typed: whoever adds a line that needs the board says so here.
NEVER_RAN = [
    "scp -r out/raspberry-pi pi@kitchen:bundle",
    "scp -r examples pi@kitchen:",
    "sudo apt-get install python3-picamera2",
    "sudo systemctl enable --now edgecls-camera",
    "journalctl -u edgecls-camera -f",
]


def lines(section: str) -> list[str]:
    """Return the lines of a section's blocks of shell."""
    (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.M | re.S)
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.M | re.S)
    return [line for block in blocks for line in block.splitlines() if line]


def on_the_pi() -> list[str]:
    """Return the lines that a Pi can run."""
    found = [*lines("On the board"), *lines("A camera loop as a service")]
    return [line for line in found if not BOARD.match(line)]


@pytest.fixture
def fresh(pi: VirtualPi, wheel: Path) -> Iterator[FreshPi]:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    with tempfile.TemporaryDirectory() as folder:
        yield FreshPi(pi, Path(folder) / "root", wheel, ROOT / "constraints.txt")


def test_only_these_lines_need_a_board() -> None:
    text = PAGE.read_text()
    marked = [found[1] for found in map(BOARD.match, text.splitlines()) if found]

    assert marked == NEVER_RAN
    # No block is outside the sections that run, and none is shell without saying so.
    run = [*on_the_pi(), *lines("Without a board")]
    blocks = re.findall(r"^```.*?\n(.*?)^```$", text, re.M | re.S)
    assert sum(block.count("\n") for block in blocks) == len(run) + len(marked)
    assert not re.search(r"^ {4}\S", text, re.M)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_the_page_runs_on_a_fresh_pi(
    pi: VirtualPi, fresh: FreshPi, wheel: Path, digits: Digits
) -> None:
    image = list_images(digits.judged)[0]
    bundle = digits.bundle("raspberry-pi")
    shutil.copytree(bundle, fresh.home / "bundle")
    shutil.copytree(ROOT / "examples", fresh.home / "examples")
    shutil.copy(image.path, fresh.home / "photo.jpg")
    said = {}
    for line in on_the_pi():
        if line.startswith(PACKAGES):
            # The Pi was made of these by apt, from the archive of its release.
            assert set(line.removeprefix(PACKAGES).split()) <= set(pi.record.packages), line
            continue
        done = fresh.run(line)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        said[line] = done.stdout

    assert "passed" in said["~/edgecls/bin/edgecls verify ~/bundle"]
    (frames,) = [text for line, text in said.items() if line.endswith(" pattern 10")]
    assert [line.split()[0] for line in frames.splitlines()] == [str(n + 1) for n in range(10)]
    asked = fresh.run("~/edgecls/bin/edgecls predict ~/bundle photo.jpg --json")
    here = load(bundle).predict(fresh.home / "photo.jpg").to_dict()
    assert json.loads(asked.stdout)["topk"] == json.loads(json.dumps(here["topk"]))
    check_what_is_installed(fresh, wheel)
    check_the_service(fresh)


def check_what_is_installed(fresh: FreshPi, wheel: Path) -> None:
    """Both environments hold this wheel, and not another of its version."""
    with zipfile.ZipFile(wheel) as packed:
        files = {name: packed.read(name) for name in packed.namelist() if name.endswith(".py")}
    for environment in (fresh.home / "edgecls", fresh.root / "opt/edgecls/env"):
        (site,) = environment.glob("lib/python3.*/site-packages")
        assert {name: (site / name).read_bytes() for name in files} == files


def check_the_service(fresh: FreshPi) -> None:
    """Run the unit's commands, the camera's with the test pattern; let systemd judge the rest."""
    unit = (fresh.root / "etc/systemd/system" / UNIT).read_text()
    commands = dict(re.findall(r"^(ExecStart(?:Pre)?)=(.*)$", unit, re.M))
    loop, camera = commands["ExecStart"].split(" picamera2 ")
    assert camera == "0"
    for command in (commands["ExecStartPre"], f"{loop} pattern 3"):
        done = fresh.run(command)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    if shutil.which("systemd-analyze"):
        judged = subprocess.run(
            ["systemd-analyze", "verify", "--recursive-errors=no", f"--root={fresh.root}", UNIT],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert judged.returncode == 0, judged.stderr


@pytest.mark.nightly
def test_the_page_runs_without_a_board(
    pi5: VirtualPi, digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    shutil.copytree(digits.bundle("raspberry-pi"), tmp_path / "out/raspberry-pi")
    shutil.copy(list_images(digits.judged)[0].path, tmp_path / "photo.jpg")
    command = tmp_path / "bin/edgecls"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m edgecls "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(command.parent), prepend=":")
    monkeypatch.setenv("EDGECLS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(MIRROR_VARIABLE, pi5.record.mirror)
    said = []
    for line in lines("Without a board"):
        if line.startswith(PACKAGES):
            line = f"dpkg --status {line.removeprefix(PACKAGES)}"
        done = subprocess.run(
            ["sh", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        said.append(done.stdout)

    assert "passed" in said[-2]
    label = load(digits.bundle("raspberry-pi")).predict(tmp_path / "photo.jpg").top1.label
    assert said[-1].splitlines()[1].split()[1] == label
