"""Which sensors this machine has."""

from __future__ import annotations

import shutil

from .nvidia import open_jtop, open_nvml
from .reading import Sensor
from .sysfs import Rapl, Sysfs
from .vcgencmd import VcGenCmd


def open_sensors(*, gpu: bool) -> list[Sensor]:
    """Return those that tell something.

    Args:
        gpu: Whether a GPU runs the model: only then it is watched.
    """
    program = shutil.which("vcgencmd")
    found: list[Sensor | None] = [
        Sysfs(),
        Rapl(),
        None if program is None else VcGenCmd(program),
        open_jtop(),
        open_nvml() if gpu else None,
    ]
    return [sensor for sensor in found if sensor is not None and sensor.read().tells]
