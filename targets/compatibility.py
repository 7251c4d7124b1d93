"""The rows of the compatibility table as people read them: one text per column."""

from __future__ import annotations

from .jetpack import JetPack, Module
from .pi_os import PiOs

Cells = dict[str, str]


def jetpack_cells(row: JetPack) -> Cells:
    """Return a JetPack's row."""
    reason = row.why_not()
    return {
        "JetPack": row.version,
        "Jetson Linux": ", ".join(row.l4t),
        "Ubuntu": row.ubuntu,
        "Python": _dotted(row.python),
        "TensorRT": row.tensorrt,
        "CUDA": row.cuda,
        "modules": ", ".join(row.socs),
        "edgecls": "runs" if reason is None else f"no: {reason}",
    }


def module_cells(row: Module) -> Cells:
    """Return a module's row."""
    return {
        "module": row.name,
        "device": row.title,
        "processor": row.soc,
        "compute capability": _dotted(row.compute_capability),
        "DLA cores": str(row.dla_cores),
        "part numbers": ", ".join(row.parts),
    }


def pi_os_cells(row: PiOs) -> Cells:
    """Return a Raspberry Pi OS's row."""
    return {
        "Raspberry Pi OS": f"{row.codename} (Debian {row.debian})",
        "bits": str(row.bits),
        "Python": _dotted(row.python),
        "runs with": row.runtime or "does not run",
    }


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
