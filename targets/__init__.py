"""The targets: one frozen value per file, and this table, which is the whole registry."""

from __future__ import annotations

from typing import Final

from ..core.errors import UsageError
from . import desktop_cpu, desktop_gpu, jetson, raspberry_pi
from .target import Target

TARGETS: Final[dict[str, Target]] = {
    target.name: target
    for target in (jetson.TARGET, raspberry_pi.TARGET, desktop_gpu.TARGET, desktop_cpu.TARGET)
}


def get_target(name: str) -> Target:
    """Return the target of that name.

    Raises:
        UsageError: There is none; the message lists them.
    """
    try:
        return TARGETS[name]
    except KeyError:
        raise UsageError(f"no target {name!r}; there are: {', '.join(TARGETS)}") from None


__all__ = ["TARGETS", "Target", "get_target"]
