"""What this machine can export and run, what is missing, and how to get it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Final, Literal

import msgspec

from ..core.errors import MissingError
from ..core.version import VERSION
from ..runtimes.backends import BACKENDS, check_backend, why_not
from ..runtimes.cuda import current_device
from ..runtimes.tensorrt_build import tensorrt_rtx_available
from ..targets import TARGETS
from ..targets.target import BackendName, Target

# What the workstation's half imports, and the extra that brings it.
_EXPORT: Final = {
    "torch": "torch",
    "onnx": "onnx",
    "onnx-ir": "onnx_ir",
    "onnxscript": "onnxscript",
    "onnxsim": "onnxsim",
    "onnxruntime": "onnxruntime",
    "safetensors": "safetensors",
    "scipy": "scipy",
    "ai-edge-litert": "ai_edge_litert",
    "flatbuffers": "flatbuffers",
}
_ZOO: Final = {"timm": "timm", "torchvision": "torchvision"}
SYSTEM_PYTHON: Final = Path("/usr/bin/python3")
_DEVICE: Final = ("numpy", "pillow", "msgspec", "click", "rich")

_EXTRAS: Final[dict[BackendName, str]] = {name: name for name in BACKENDS} | {
    "onnxruntime-cuda": "onnxruntime-gpu"
}


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at.

    Attributes:
        name: What.
        state: "ok" works, "missing" does not and could, "info" is neither.
        detail: What was found.
        fix: What to do; empty where nothing is to be done.
    """

    name: str
    state: Literal["ok", "missing", "info"]
    detail: str
    fix: str = ""


def examine() -> list[Finding]:
    """Look at this machine; nothing of the workstation's half is imported, nothing is changed."""
    return [
        Finding(name="edgecls", state="info", detail=VERSION),
        _python(),
        _machine(),
        *_jetson(),
        *(_package(name) for name in _DEVICE),
        _gpu(),
        *(_backend(name) for name in BACKENDS),
        *_system_tensorrt(),
        _export(),
        _zoo(),
        _engine_builder(),
        *(_runs(target) for target in TARGETS.values()),
    ]


def _python() -> Finding:
    found = f"{platform.python_version()} ({sys.executable})"
    if not (3, 10) <= sys.version_info[:2] <= (3, 13):
        fix = "use Python 3.10 to 3.13"
        return Finding(name="python", state="missing", detail=found, fix=fix)
    return Finding(name="python", state="ok", detail=found)


def _machine() -> Finding:
    detail = f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}"
    model = _text(Path("/proc/device-tree/model"))
    if model:
        detail = f"{model}, {detail}"
    if platform.machine() in ("armv7l", "armv6l"):
        # LiteRT, numpy and Pillow have no wheels for 32-bit ARM.
        fix = "install the 64-bit system, or use tflite-runtime with Debian's numpy and Pillow"
        return Finding(name="machine", state="missing", detail=detail, fix=fix)
    return Finding(name="machine", state="info", detail=detail)


def _jetson() -> list[Finding]:
    release = _text(Path("/etc/nv_tegra_release"))
    if not release:
        return []
    return [Finding(name="jetson linux", state="info", detail=jetson_release(release))]


def jetson_release(text: str) -> str:
    """Return Jetson Linux's version and its JetPack from the text of ``/etc/nv_tegra_release``.

    Source: NVIDIA's JetPack archive, https://developer.nvidia.com/embedded/jetpack-archive
    """
    parts = [part.strip() for part in text.lstrip("# ").split(",")]
    major = parts[0].removeprefix("R").split(" ")[0]
    revision = parts[1].removeprefix("REVISION:").strip() if len(parts) > 1 else ""
    jetpack = {"32": "4", "34": "5", "35": "5", "36": "6", "38": "7"}.get(major)
    version = f"L4T {major}.{revision}" if revision else f"L4T {major}"
    return f"{version} (JetPack {jetpack})" if jetpack else version


def _package(name: str) -> Finding:
    version = _version(name)
    if version is None:
        fix = "run: pip install edgecls"
        return Finding(name=name, state="missing", detail="not installed", fix=fix)
    return Finding(name=name, state="ok", detail=version)


def _gpu() -> Finding:
    try:
        device = current_device()
    except MissingError as error:
        detail, _, fix = str(error).partition("; ")
        return Finding(name="nvidia gpu", state="info", detail=detail, fix=fix)
    major, minor = device.compute_capability
    detail = f"{device.name}, compute capability {major}.{minor}"
    return Finding(name="nvidia gpu", state="ok", detail=detail)


def _backend(name: BackendName) -> Finding:
    title = f"backend {name}"
    try:
        version = check_backend(name)
    except MissingError as error:
        detail, _, fix = str(error).partition("; ")
        return Finding(name=title, state="missing", detail=detail, fix=fix)
    return Finding(name=title, state="ok", detail=version)


def _system_tensorrt() -> list[Finding]:
    """Find the TensorRT that JetPack gave the system's Python and a virtual environment hides."""
    if sys.prefix == sys.base_prefix or importlib.util.find_spec("tensorrt") is not None:
        return []
    if not SYSTEM_PYTHON.exists():
        return []
    code = "import importlib.metadata as m; print(m.version('tensorrt'))"
    try:
        done = subprocess.run(
            [SYSTEM_PYTHON, "-I", "-c", code],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    if done.returncode:
        return []
    return [
        Finding(
            name="tensorrt of the system",
            state="missing",
            detail=f"{done.stdout.strip()} is in {SYSTEM_PYTHON}, and hidden from this environment",
            fix="make the environment again: python3 -m venv --system-site-packages DIR",
        )
    ]


def _export() -> Finding:
    absent = [name for name, module in _EXPORT.items() if importlib.util.find_spec(module) is None]
    fix = "run: pip install 'edgecls[export]'"
    if not absent:
        detail = ", ".join(f"{name} {_version(name)}" for name in ("torch", "onnx"))
        return Finding(name="export", state="ok", detail=detail)
    if len(absent) == len(_EXPORT):
        detail = "not installed; a device does not need it"
        return Finding(name="export", state="info", detail=detail, fix=fix)
    detail = f"half installed, without {', '.join(absent)}"
    return Finding(name="export", state="missing", detail=detail, fix=fix)


def _zoo() -> Finding:
    absent = [name for name, module in _ZOO.items() if importlib.util.find_spec(module) is None]
    if absent:
        fix = "run: pip install 'edgecls[zoo]'"
        detail = f"without {', '.join(absent)}: no timm: or torchvision: models"
        return Finding(name="model zoo", state="info", detail=detail, fix=fix)
    detail = ", ".join(f"{name} {_version(name)}" for name in _ZOO)
    return Finding(name="model zoo", state="ok", detail=detail)


def _engine_builder() -> Finding:
    version = tensorrt_rtx_available()
    if version is None:
        detail = "TensorRT-RTX is not installed: export does not check graphs with its parser"
        fix = "run: pip install 'edgecls[tensorrt-rtx]'"
        return Finding(name="engine builder", state="info", detail=detail, fix=fix)
    return Finding(name="engine builder", state="ok", detail=f"TensorRT-RTX {version}")


def _runs(target: Target) -> Finding:
    """Say what would run a bundle of this target here."""
    title = f"run {target.name}"
    for name in target.backends:
        if why_not(name) is None:
            return Finding(name=title, state="ok", detail=f"with {name}")
    for name in target.simulators:
        if why_not(name) is None:
            detail = f"only as a simulation: --backend {name}"
            return Finding(name=title, state="info", detail=detail)
    extra = (*target.simulators, *target.backends)[0]
    fix = f"run: pip install 'edgecls[{_EXTRAS[extra]}]'"
    return Finding(name=title, state="missing", detail="no backend for it", fix=fix)


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip("\0 \n")
    except OSError:
        return ""
