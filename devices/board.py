"""What a Jetson or a Raspberry Pi says of itself in its files, held against the table of targets.

Nothing is imported, run or changed; the root folder is a parameter, so that the recorded files of a
device read as the device does.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from ..targets.jetpack import (
    JETPACKS,
    L4T_JETPACKS,
    OLDEST_TENSORRT,
    JetPack,
    Module,
    dla_cores,
    module_of,
)
from ..targets.pi_os import PI_OS, pi_os_of
from .finding import Finding

ROOT: Final = Path("/")

_RELEASE: Final = re.compile(r"R(\d+)(?:[^,]*, REVISION: ([\d.]+))?")
_DRIVER: Final = re.compile(r"NVRM version:.*?\s(\d+\.\d[\d.]*)\s")
_MODES: Final = re.compile(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>")
_DIST_INFO: Final = re.compile(r"tensorrt-([\d.]+)\.dist-info")
# The modes without limits, the fastest first; 0 is not the fastest everywhere.
_FASTEST: Final = ("MAXN_SUPER", "MAXN")


def examine_board(root: Path = ROOT) -> list[Finding]:
    """Return what a Jetson or a Raspberry Pi says of itself; nothing on other machines.

    Args:
        root: The folder that is "/" on the device.
    """
    release = _text(root / "etc/nv_tegra_release")
    if release:
        return _jetson(root, release)
    if "Raspberry Pi" in _text(root / "proc/device-tree/model"):
        return _raspberry_pi(root)
    return []


def l4t_release(text: str) -> str:
    """Return Jetson Linux's version, e.g. 36.4.3, from ``/etc/nv_tegra_release``; empty if none."""
    found = _RELEASE.search(text)
    return ".".join(part for part in found.groups() if part) if found else ""


def jetpack_of(l4t: str) -> JetPack | None:
    """Return the row of the JetPack that a Jetson Linux belongs to, if the table has it."""
    return next((row for row in JETPACKS if l4t in row.l4t), None)


def system_tensorrt(root: Path = ROOT) -> tuple[str, Path] | None:
    """Return the version of the system Python's TensorRT and the folder that it is in."""
    for prefix in ("usr/lib", "usr/local/lib"):
        for folder in sorted((root / prefix).glob("python3*/dist-packages")):
            for entry in sorted(folder.glob("tensorrt-*.dist-info")):
                if found := _DIST_INFO.fullmatch(entry.name):
                    return found[1], folder
    return None


def _jetson(root: Path, release: str) -> list[Finding]:
    l4t = l4t_release(release)
    system = jetpack_of(l4t)
    module = module_of(tuple(_text(root / "proc/device-tree/compatible").split("\0")))
    return [
        _linux(l4t, system, module),
        _module(_text(root / "proc/device-tree/model"), system, module),
        _tensorrt(root, system),
        *_driver(root),
        *_memory(root),
        *_power(root),
    ]


def _linux(l4t: str, system: JetPack | None, module: Module | None) -> Finding:
    name = "jetson linux"
    if system is None:
        jetpack = L4T_JETPACKS.get(l4t)
        told = f"L4T {l4t}" + (f" (JetPack {jetpack})" if jetpack else "")
        return Finding(name=name, state="info", detail=f"{told}, not in the table of JetPacks")
    detail = (
        f"L4T {l4t} (JetPack {system.version}: TensorRT {system.tensorrt}, CUDA {system.cuda}, "
        f"Python {system.python[0]}.{system.python[1]})"
    )
    reason = system.why_not()
    if reason is None:
        return Finding(name=name, state="ok", detail=detail)
    newer = [
        row.version
        for row in JETPACKS
        if row.why_not() is None and (module is None or module.soc in row.socs)
    ]
    fix = "no JetPack of its module runs our bundles: use another module"
    if newer:
        fix = f"flash JetPack {' or '.join(newer)}"
    return Finding(name=name, state="missing", detail=f"{detail}: {reason}", fix=fix)


def _module(model: str, system: JetPack | None, module: Module | None) -> Finding:
    name = "jetson module"
    if module is None:
        return Finding(name=name, state="info", detail=f"{model or 'no name'}, not in the table")
    major, minor = module.compute_capability
    detail = f"{module.title} ({module.name}; {model}), compute capability {major}.{minor}"
    if not module.dla_cores:
        return Finding(name=name, state="info", detail=f"{detail}, no DLA")
    used = dla_cores(system, module) if system is not None else 0
    told = f"{module.dla_cores} DLA cores" if used or system is None else (
        f"{module.dla_cores} DLA cores, which TensorRT {system.tensorrt} does not drive"
    )  # fmt: skip
    return Finding(name=name, state="info", detail=f"{detail}, {told}")


def _tensorrt(root: Path, system: JetPack | None) -> Finding:
    name = "jetpack tensorrt"
    found = system_tensorrt(root)
    if found is None:
        expected = f" (JetPack {system.version} has {system.tensorrt})" if system else ""
        return Finding(
            name=name,
            state="missing",
            detail=f"the system's Python has no TensorRT{expected}",
            fix="run: sudo apt install nvidia-jetpack",
        )
    version, folder = found
    detail = f"{version} in /{folder.relative_to(root)}"
    release = tuple(int(part) for part in version.split(".")[:2])
    if release < OLDEST_TENSORRT:
        oldest = ".".join(map(str, OLDEST_TENSORRT))
        fix = f"flash a JetPack with TensorRT {oldest} or later: edgecls targets --devices"
        return Finding(name=name, state="missing", detail=f"{detail}, too old", fix=fix)
    return Finding(name=name, state="ok", detail=detail)


def _driver(root: Path) -> list[Finding]:
    found = _DRIVER.search(_text(root / "proc/driver/nvidia/version") + " ")
    return [Finding(name="nvidia driver", state="info", detail=found[1])] if found else []


def _memory(root: Path) -> list[Finding]:
    kib = dict(re.findall(r"(\w+):\s+(\d+) kB", _text(root / "proc/meminfo")))
    if not {"MemTotal", "MemAvailable"} <= set(kib):
        return []
    total, free = (int(kib[key]) / 2**20 for key in ("MemTotal", "MemAvailable"))
    detail = f"{total:.1f} GiB, {free:.1f} GiB free (processor and GPU share it)"
    return [Finding(name="memory", state="info", detail=detail)]


def _power(root: Path) -> list[Finding]:
    """Read what nvpmodel wrote: ``nvpmodel -q`` would need root on some releases."""
    status = re.search(r"pmode:(\d+)", _text(root / "var/lib/nvpmodel/status"))
    modes = dict(_MODES.findall(_text(root / "etc/nvpmodel.conf")))
    if status is None:
        return []
    number = str(int(status[1]))
    mode = modes.get(number, f"mode {number}")
    numbers = {name: given for given, name in modes.items()}
    fastest = next((name for name in _FASTEST if name in numbers), mode)
    if mode == fastest:
        return [Finding(name="power mode", state="ok", detail=mode)]
    fix = f"for full speed, where supply and cooling allow: sudo nvpmodel -m {numbers[fastest]}"
    return [Finding(name="power mode", state="info", detail=f"{mode}, not {fastest}", fix=fix)]


def _raspberry_pi(root: Path) -> list[Finding]:
    system = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', _text(root / "etc/os-release"), re.M))
    codename = system.get("VERSION_CODENAME", "")
    # The kernel may be of 64 bits over programs of 32: what counts is the programs' loader.
    bits = 64 if (root / "lib/ld-linux-aarch64.so.1").exists() else 32
    row = pi_os_of(codename, bits)
    told = f"{system.get('PRETTY_NAME', codename) or 'unknown'}, {bits}-bit"
    if row is None:
        return [Finding(name="pi os", state="info", detail=f"{told}, not in the table")]
    detail = f"{told}: Python {row.python[0]}.{row.python[1]}"
    if row.bits == 64 and row.runtime:
        return [Finding(name="pi os", state="ok", detail=f"{detail}, runs with {row.runtime}")]
    good = " or ".join(r.codename for r in PI_OS if r.runtime and r.bits == 64)
    return [
        Finding(
            name="pi os",
            state="missing",
            detail=f"{detail}, {f'only {row.runtime}' if row.runtime else 'no LiteRT for it'}",
            fix=f"install Raspberry Pi OS {good}, 64-bit",
        )
    ]


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip("\0 \n")
    except OSError:
        return ""
