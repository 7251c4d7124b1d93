"""What this machine can export and run, what is missing, and how to get it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import sys
from pathlib import Path
from typing import Final

from ..core.errors import MissingError
from ..core.version import VERSION
from ..runtimes.backends import BACKENDS, check_backend, why_not
from ..runtimes.cuda import current_device
from ..runtimes.tensorrt_build import tensorrt_rtx_available
from ..targets import TARGETS
from ..targets.target import BackendName, Target
from .board import ROOT, examine_board, jetpack_of, l4t_release, system_tensorrt
from .finding import Finding as Finding

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
_DEVICE: Final = ("numpy", "pillow", "msgspec", "click", "rich")

_EXTRAS: Final[dict[BackendName, str]] = {name: name for name in BACKENDS} | {
    "onnxruntime-cpu": "onnxruntime",
    "onnxruntime-cuda": "onnxruntime-gpu",
}


def examine(root: Path = ROOT) -> list[Finding]:
    """Look at this machine; nothing of the workstation's half is imported, nothing is changed.

    Args:
        root: What is read as "/" for what a board says of itself.
    """
    return [
        Finding(name="edgecls", state="info", detail=VERSION),
        _python(),
        _machine(),
        *examine_board(root),
        *(_package(name) for name in _DEVICE),
        _gpu(),
        *(_backend(name) for name in BACKENDS),
        *_hidden_tensorrt(root),
        *_cuda_bindings(root),
        _export(),
        _zoo(),
        _engine_builder(),
        *(_runs(target, root) for target in TARGETS.values()),
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


def _hidden_tensorrt(root: Path) -> list[Finding]:
    """Find the TensorRT that JetPack gave the system's Python and a virtual environment hides."""
    found = system_tensorrt(root)
    if found is None or importlib.util.find_spec("tensorrt") is not None:
        return []
    version, folder = found
    python = folder.parent.name
    own = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    detail = f"{version} is in {python}'s packages, and hidden from this environment"
    if python not in ("python3", own):
        detail += f", which has {own}"
    return [
        Finding(
            name="tensorrt of the system",
            state="missing",
            detail=detail,
            fix=f"make the environment again: {python} -m venv --system-site-packages DIR",
        )
    ]


def _cuda_bindings(root: Path) -> list[Finding]:
    """Hold cuda-bindings against the JetPack's CUDA: pip takes the newest, which may not fit."""
    system = jetpack_of(l4t_release(_text(root / "etc/nv_tegra_release")))
    version = _version("cuda-bindings")
    if system is None or version is None:
        return []
    major = system.cuda.split(".")[0]
    if version.split(".")[0] == major:
        return [Finding(name="cuda-bindings", state="ok", detail=version)]
    return [
        Finding(
            name="cuda-bindings",
            state="missing",
            detail=f"{version}, but JetPack {system.version} has CUDA {system.cuda}",
            fix=f"run: pip install 'cuda-bindings=={major}.*'",
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


def _runs(target: Target, root: Path = ROOT) -> Finding:
    """Say what would run a bundle of this target here."""
    title = f"run {target.name}"
    for name in target.backends:
        if why_not(name) is None:
            return Finding(name=title, state="ok", detail=f"with {name}")
    for name in target.simulators:
        if why_not(name) is None:
            detail = f"only as a simulation: --backend {name}"
            return Finding(name=title, state="info", detail=detail)
    if target.jetpack and (root / "etc/nv_tegra_release").exists():
        detail, _, fix = str(why_not(target.backends[0])).partition("; ")
        return Finding(name=title, state="missing", detail=detail, fix=fix)
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
