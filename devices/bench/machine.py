"""What the machine is that is measured."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from ..doctor import Finding, examine


def emulated() -> bool:
    """Return whether this is a virtual device's Python: its launcher is told what to run so."""
    return "EDGECLS_APP" in os.environ


def describe(root: Path = Path("/")) -> tuple[Finding, ...]:
    """Return the doctor's findings, and what else decides how fast it is.

    Args:
        root: The folder that holds ``proc`` and ``sys``.
    """
    cpu = root / "sys/devices/system/cpu"
    governors = {_text(path) for path in cpu.glob("cpufreq/policy*/scaling_governor")}
    limits = {_text(path) for path in cpu.glob("cpufreq/policy*/scaling_max_freq")}
    total = _value(root / "proc/meminfo", "MemTotal")
    more = {
        "processor": _value(root / "proc/cpuinfo", "model name"),
        "memory": total,
        "kernel": f"{platform.system()} {platform.release()}",
        "governor": ", ".join(sorted(governors)),
        "highest clock": ", ".join(f"{int(limit) / 1e3:.0f} MHz" for limit in sorted(limits)),
    }
    found = [
        Finding(name=name, state="info", detail=detail) for name, detail in more.items() if detail
    ]
    return (*examine(), *found)


def _value(path: Path, key: str) -> str:
    """Return what stands behind the first line's colon that begins with a key."""
    for line in _text(path).splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
