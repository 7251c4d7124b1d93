from __future__ import annotations

from pathlib import Path

import pytest

from edgecls.devices.board import examine_board, l4t_release
from edgecls.devices.doctor import examine

from .boards import BOARDS, write

# Per device: what the doctor says, as (state, part of the detail, part of the fix).
EXPECTED = {
    "orin-nano-jetpack-6.2": {
        "jetson linux": ("ok", "36.4.3 (JetPack 6.2: TensorRT 10.3, CUDA 12.6, Python 3.10)", ""),
        "jetson module": ("info", "(orin-nano; NVIDIA Jetson Orin Nano Engineering", ""),
        "jetpack tensorrt": ("ok", "10.3.0 in /usr/lib/python3.10/dist-packages", ""),
        "nvidia driver": ("info", "540.4.0", ""),
        "memory": ("info", "7.4 GiB, 5.2 GiB free", ""),
        "power mode": ("info", "15W, not MAXN_SUPER", "sudo nvpmodel -m 2"),
    },
    "orin-nx-jetpack-6.2-without-tensorrt": {
        "jetson linux": ("ok", "JetPack 6.2", ""),
        "jetson module": ("info", "capability 8.7, 2 DLA cores", ""),
        "jetpack tensorrt": ("missing", "(JetPack 6.2 has 10.3)", "sudo apt install"),
    },
    "agx-orin-l4t-36.5.2": {
        "jetson linux": ("info", "L4T 36.5.2 (JetPack 6.2.3), not in the table", ""),
        "jetson module": ("info", "Jetson AGX Orin (agx-orin;", ""),
        "jetpack tensorrt": ("ok", "10.3.0", ""),
        "nvidia driver": ("info", "540.5.0", ""),
    },
    "agx-orin-jetpack-7.2": {
        "jetson linux": ("ok", "JetPack 7.2: TensorRT 10.16.2, CUDA 13.2, Python 3.12", ""),
        "jetson module": ("info", "DLA cores, which TensorRT 10.16.2 does not drive", ""),
        "jetpack tensorrt": ("ok", "10.16.2.10 in /usr/lib/python3.12", ""),
        "nvidia driver": ("info", "595.78", ""),
        "power mode": ("ok", "MAXN", ""),
    },
    "agx-thor-jetpack-7.0": {
        "jetson linux": ("info", "L4T 38.2.2, not in the table", ""),
        "jetson module": ("info", "compute capability 11.0, no DLA", ""),
        "jetpack tensorrt": ("ok", "10.13.3.9", ""),
    },
    "xavier-nx-jetpack-5.1.1": {
        "jetson linux": ("missing", "expected 10.3 or later", "no JetPack of its module runs"),
        "jetson module": ("info", "compute capability 7.2", ""),
        "jetpack tensorrt": ("missing", "8.5.2.2 in", "flash a JetPack with TensorRT 10.3"),
    },
    "orin-nano-jetpack-5.1.1": {
        "jetson linux": ("missing", "TensorRT 8.5.2", "flash JetPack 6.1 or 6.2 or 6.2.1 or 7.2"),
        "jetson module": ("info", "Orin Nano", ""),
        "jetpack tensorrt": ("missing", "(JetPack 5.1.1 has 8.5.2)", "apt install"),
    },
    "pi-5-bookworm": {"pi os": ("ok", "64-bit: Python 3.11, runs with ai-edge-litert 2.3", "")},
    "pi-4-bookworm-32": {
        "pi os": ("missing", "32-bit: Python 3.11, only tflite-runtime", "trixie, 64-bit")
    },
    "pi-4-bullseye": {"pi os": ("missing", "Python 3.9, no LiteRT", "bookworm or trixie, 64-bit")},
}  # fmt: skip


@pytest.mark.parametrize("name", BOARDS)
def test_a_recorded_device_is_read(name: str, tmp_path: Path) -> None:
    found = {finding.name: finding for finding in examine_board(write(name, tmp_path))}

    assert list(found) == list(EXPECTED[name])
    for what, (state, detail, fix) in EXPECTED[name].items():
        finding = found[what]
        assert (finding.state, detail in finding.detail) == (state, True), finding
        assert fix in finding.fix, finding
        assert bool(fix) == bool(finding.fix), finding


def test_another_machine_has_nothing_to_say(tmp_path: Path) -> None:
    assert examine_board(tmp_path) == []


def test_the_doctor_of_a_device_says_it_all(tmp_path: Path) -> None:
    found = {f.name: f for f in examine(write("orin-nano-jetpack-6.2", tmp_path))}

    assert found["jetson linux"].state == "ok"
    assert "run jetson" in found
    assert all(f.fix for f in found.values() if f.state == "missing")


@pytest.mark.parametrize(
    "damage",
    [
        {"etc/nv_tegra_release": "# R36"},
        {"proc/meminfo": "MemTotal: 1 kB\n", "etc/nvpmodel.conf": ""},
        {"proc/driver/nvidia/version": "?"},
        {"var/lib/nvpmodel/status": "pmode:", "proc/device-tree/compatible": "acme,board\0"},
        {"var/lib/nvpmodel/status": "pmode:0007"},
    ],
)  # fmt: skip
def test_files_in_another_form_are_no_error(tmp_path: Path, damage: dict[str, str]) -> None:
    root = write("orin-nano-jetpack-6.2", tmp_path)
    for path, content in damage.items():
        (root / path).write_text(content)

    assert "jetson linux" in {finding.name for finding in examine_board(root)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: a", "36.4.3"),
        ("# R35 (release), REVISION: 5.0, GCID: 35550185, BOARD: t186ref", "35.5.0"),
        ("# R99 (release), REVISION: 1.0, GCID: 1", "99.1.0"),
        ("# R36", "36"),
        ("something else", ""),
    ],
)
def test_l4t_release(text: str, expected: str) -> None:
    assert l4t_release(text) == expected
