from __future__ import annotations

import platform
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from edgecls.core.errors import BackendUnavailableError, MissingPackageError
from edgecls.devices import doctor
from edgecls.devices.doctor import Finding, examine, jetson_release
from edgecls.runtimes.backends import BACKENDS, why_not
from edgecls.targets import TARGETS


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def test_everything_is_looked_at_once() -> None:
    found = examine()

    names = [finding.name for finding in found]
    assert len(names) == len(set(names))
    expected = {"python", "machine", "numpy", "pillow", "nvidia gpu", "export", "model zoo"}
    expected |= {f"backend {name}" for name in BACKENDS} | {f"run {name}" for name in TARGETS}
    assert expected <= set(names)


def test_what_is_missing_says_how_to_get_it() -> None:
    for finding in examine():
        assert finding.detail
        if finding.state == "missing":
            assert finding.fix, finding
        if finding.state == "ok":
            assert not finding.fix, finding


@pytest.mark.parametrize("name", BACKENDS)
def test_a_backend_is_ok_exactly_where_it_can_run(name: Any) -> None:
    finding = by_name(examine())[f"backend {name}"]

    assert (finding.state == "ok") == (why_not(name) is None)


def test_nothing_of_the_workstation_is_imported() -> None:
    code = (
        "import sys\n"
        "from edgecls.devices.doctor import examine\n"
        "examine()\n"
        "bad = {'torch', 'onnx', 'scipy', 'onnxscript', 'timm', 'tensorflow'} & set(sys.modules)\n"
        "assert not bad, bad\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("absent", "state", "detail"),
    [
        (set(), "ok", "torch"),
        ({"onnxscript"}, "missing", "half installed, without onnxscript"),
        (set(doctor._EXPORT.values()), "info", "a device does not need it"),
    ],
)
def test_export_is_whole_half_or_absent(
    monkeypatch: pytest.MonkeyPatch, absent: set[str], state: str, detail: str
) -> None:
    monkeypatch.setattr(
        doctor.importlib.util, "find_spec", lambda name: None if name in absent else name
    )

    found = doctor._export()

    assert found.state == state
    assert detail in found.detail


@pytest.mark.parametrize(
    ("broken", "state", "detail"),
    [
        (set(), "ok", "with tensorrt-rtx"),
        ({"tensorrt-rtx", "tensorrt"}, "ok", "with onnxruntime-cuda"),
        (set(BACKENDS) - {"onnxruntime"}, "info", "only as a simulation: --backend onnxruntime"),
        (set(BACKENDS), "missing", "no backend"),
    ],
)
def test_a_target_runs_with_the_first_backend_that_can(
    monkeypatch: pytest.MonkeyPatch, broken: set[str], state: str, detail: str
) -> None:
    monkeypatch.setattr(doctor, "why_not", lambda name: "broken" if name in broken else None)

    found = doctor._runs(TARGETS["desktop-gpu"])

    assert found.state == state
    assert detail in found.detail


def test_a_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = namedtuple("gpu", "name compute_capability")("Orin", (8, 7))
    monkeypatch.setattr(doctor, "current_device", lambda: gpu)
    assert doctor._gpu() == Finding(
        name="nvidia gpu", state="ok", detail="Orin, compute capability 8.7"
    )

    def none() -> Any:
        raise BackendUnavailableError("no CUDA GPU; install a driver")

    monkeypatch.setattr(doctor, "current_device", none)
    assert doctor._gpu() == Finding(
        name="nvidia gpu", state="info", detail="no CUDA GPU", fix="install a driver"
    )


def test_the_fix_of_an_error_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise MissingPackageError("ai-edge-litert", "litert")

    monkeypatch.setattr(doctor, "check_backend", missing)

    found = doctor._backend("litert")

    assert found.detail == "'ai-edge-litert' is not installed"
    assert found.fix == "run: pip install 'edgecls[litert]'"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64",
            "L4T 36.4.3 (JetPack 6)",
        ),
        (
            "# R35 (release), REVISION: 5.0, GCID: 35550185, BOARD: t186ref",
            "L4T 35.5.0 (JetPack 5)",
        ),
        ("# R38 (release), REVISION: 2.0, GCID: 1", "L4T 38.2.0 (JetPack 7)"),
        ("# R99 (release), REVISION: 1.0, GCID: 1", "L4T 99.1.0"),
        ("# R36", "L4T 36 (JetPack 6)"),
    ],
)
def test_jetson_release(text: str, expected: str) -> None:
    assert jetson_release(text) == expected


def test_a_32_bit_system_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "armv7l")

    assert by_name([doctor._machine()])["machine"].state == "missing"


def test_an_old_python_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.sys, "version_info", (3, 9, 1))

    assert doctor._python().fix == "use Python 3.10 to 3.13"


def test_a_hidden_tensorrt_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """JetPack's TensorRT: in the system's Python, not in the environment's."""
    python = tmp_path / "python3"
    python.write_text("#!/bin/sh\necho 10.3.0\n")
    python.chmod(0o755)
    monkeypatch.setattr(doctor, "SYSTEM_PYTHON", python)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    if doctor.importlib.util.find_spec("tensorrt") is not None:
        pytest.skip("TensorRT is installed here")

    (found,) = doctor._system_tensorrt()

    assert found.detail.startswith("10.3.0 is in")
    assert "--system-site-packages" in found.fix
    python.write_text("#!/bin/sh\nexit 1\n")
    assert doctor._system_tensorrt() == []
