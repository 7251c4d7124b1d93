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
from edgecls.devices.doctor import Finding, examine
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


def test_a_32_bit_system_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "armv7l")

    assert by_name([doctor._machine()])["machine"].state == "missing"


def test_an_old_python_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.sys, "version_info", (3, 9, 1))

    assert doctor._python().fix == "use Python 3.10 to 3.13"


def test_a_hidden_tensorrt_is_found(tmp_path: Path) -> None:
    """JetPack's TensorRT: in the system's Python, not in the environment's."""
    if doctor.importlib.util.find_spec("tensorrt") is not None:
        pytest.skip("TensorRT is installed here")
    assert doctor._hidden_tensorrt(tmp_path) == []
    packages = tmp_path / "usr/lib/python3.10/dist-packages"
    (packages / "tensorrt-10.3.0.dist-info").mkdir(parents=True)

    (found,) = doctor._hidden_tensorrt(tmp_path)

    assert found.detail.startswith("10.3.0 is in python3.10's packages")
    assert found.fix.endswith("python3.10 -m venv --system-site-packages DIR")
    if sys.version_info[:2] != (3, 10):
        assert f"which has python3.{sys.version_info[1]}" in found.detail


@pytest.mark.parametrize(("version", "state"), [("12.9.1", "ok"), ("13.0.2", "missing")])
def test_cuda_bindings_must_fit_the_jetpack(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str, state: str
) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: version)
    assert doctor._cuda_bindings(tmp_path) == []
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nv_tegra_release").write_text("# R36 (release), REVISION: 4.3, GCID: 1")

    (found,) = doctor._cuda_bindings(tmp_path)

    assert found.state == state
    assert found.fix == ("" if state == "ok" else "run: pip install 'cuda-bindings==12.*'")


def test_a_jetson_that_does_not_run_is_not_told_to_simulate(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "why_not", lambda name: f"{name} is not there; mend it")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nv_tegra_release").write_text("# R36 (release), REVISION: 4.3, GCID: 1")

    found = doctor._runs(TARGETS["jetson"], tmp_path)

    assert (found.state, found.detail, found.fix) == ("missing", "tensorrt is not there", "mend it")
    assert "onnxruntime" in doctor._runs(TARGETS["desktop-gpu"], tmp_path).fix
