"""What NVIDIA's boards tell: NVML through ``pynvml``, a Jetson through jetson-stats (``jtop``).

Sources: https://docs.nvidia.com/deploy/nvml-api and https://rnext.it/jetson_stats
"""

from __future__ import annotations

import atexit
import importlib
from collections.abc import Callable
from typing import Any, Final

from .reading import Reading, Sensor

# NVML's clocks event reasons that slow a GPU down against its will.
_REASONS: Final = {
    0x04: "GPU power cap",
    0x08: "GPU hardware slowdown",
    0x20: "GPU thermal slowdown",
    0x40: "GPU hardware thermal slowdown",
    0x80: "GPU power brake",
}


class Nvml:
    """A GPU's clock, temperature, slowdowns and energy."""

    def __init__(self, library: Any, handle: Any) -> None:
        """Take an initialised ``pynvml`` and a device's handle."""
        self._library = library
        self._handle = handle

    def read(self) -> Reading:
        """Return what it tells now."""
        library = self._library
        clock = self._ask("nvmlDeviceGetClockInfo", library.NVML_CLOCK_SM)
        temperature = self._ask("nvmlDeviceGetTemperature", library.NVML_TEMPERATURE_GPU)
        # Called so in every version; newer ones have it under a second name, too.
        reasons = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons")
        energy = self._ask("nvmlDeviceGetTotalEnergyConsumption")
        return Reading(
            clocks_mhz={} if clock is None else {"gpu": float(clock)},
            temperatures_c={} if temperature is None else {"gpu": float(temperature)},
            throttled={}
            if reasons is None
            else {name: bool(reasons & bit) for bit, name in _REASONS.items()},
            energy_j={} if energy is None else {"gpu": energy / 1e3},
        )

    def _ask(self, name: str, *arguments: Any) -> Any:
        function: Callable[..., Any] = getattr(self._library, name)
        try:
            return function(self._handle, *arguments)
        except self._library.NVMLError:  # this GPU does not tell
            return None


class Jtop:
    """A Jetson's clocks, temperatures and power."""

    def __init__(self, jetson: Any) -> None:
        """Take a started ``jtop``."""
        self._jetson = jetson

    def read(self) -> Reading:
        """Return what it told last; it asks the board once per its interval."""
        jetson = self._jetson
        cores = [core.get("freq", {}).get("cur") for core in jetson.cpu.get("cpu", [])]
        gpus = [gpu.get("freq", {}).get("cur") for _, gpu in jetson.gpu.items()]
        clocks = {
            unit: max(known) / 1e3
            for unit, values in (("cpu", cores), ("gpu", gpus))
            if (known := [value for value in values if value])
        }
        power = jetson.power.get("tot", {}).get("power")
        return Reading(
            clocks_mhz=clocks,
            temperatures_c={
                name: float(place["temp"])
                for name, place in jetson.temperature.items()
                if place.get("online", True)
            },
            power_w={} if power is None else {"board": power / 1e3},
        )


def open_nvml() -> Sensor | None:
    """Return the GPU's sensor; None without ``nvidia-ml-py``, a driver, or one GPU.

    With several, NVML's order and CUDA's differ, and it would be a guess which one runs.
    """
    try:
        library = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        library.nvmlInit()
    except library.NVMLError:
        return None
    atexit.register(library.nvmlShutdown)
    if library.nvmlDeviceGetCount() != 1:
        return None
    return Nvml(library, library.nvmlDeviceGetHandleByIndex(0))


def open_jtop() -> Sensor | None:
    """Return a Jetson's sensor; None without jetson-stats, or where its service does not run."""
    try:
        library = importlib.import_module("jtop")
    except ImportError:
        return None
    jetson = library.jtop(interval=0.5)
    try:
        jetson.start()
        jetson.ok()  # waits for the first answer
    except (library.JtopException, OSError):
        return None
    atexit.register(jetson.close)
    return Jtop(jetson)
