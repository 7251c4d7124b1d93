"""What Linux tells under ``/sys``: temperatures, clocks, throttling, and energy (RAPL).

Sources: the kernel's Documentation/driver-api/thermal/sysfs-api.rst, admin-guide/pm/cpufreq.rst
and power/powercap/powercap.rst.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from .reading import Reading

# Cooling devices that cool by slowing down; others are fans, and screens that are dimmed.
_SLOWING: Final = ("cpufreq", "thermal-cpufreq", "devfreq", "thermal-devfreq", "Processor",
                   "intel_powerclamp")  # fmt: skip
_ALERT: Final = "-throttle-alert"  # a Jetson's: its firmware slows down, the kernel is told


class Sysfs:
    """Temperatures, the fastest core's clock, and what slows the machine down."""

    def __init__(self, root: Path = Path("/")) -> None:
        """Find what there is.

        Args:
            root: The folder that holds ``sys``.
        """
        thermal = root / "sys/class/thermal"
        cpu = root / "sys/devices/system/cpu"
        self._zones = _named(thermal, "thermal_zone*", "temp")
        self._slowing = [
            (name, path)
            for name, path in _named(thermal, "cooling_device*", "cur_state")
            if name.startswith(_SLOWING) or name.endswith(_ALERT)
        ]
        self._clocks = sorted(cpu.glob("cpufreq/policy*/scaling_cur_freq"))
        self._events = sorted(cpu.glob("cpu[0-9]*/thermal_throttle/core_throttle_count"))

    def read(self) -> Reading:
        """Return what it tells now."""
        clocks = [value for path in self._clocks if (value := _number(path)) is not None]
        events = [value for path in self._events if (value := _number(path)) is not None]
        temperatures = {}
        for name, path in self._zones:
            value = _number(path)
            if value is not None and value > -100_000:  # lower ones mean that it is switched off
                temperatures[name] = value / 1e3
        return Reading(
            clocks_mhz={"cpu": max(clocks) / 1e3} if clocks else {},
            temperatures_c=temperatures,
            throttled={
                f"cooled by {name}": (_number(path) or 0) > 0 for name, path in self._slowing
            },
            events={"cores throttled": sum(events)} if events else {},
        )


class Rapl:
    """The energy that a processor's packages count; readable by root alone on most systems."""

    def __init__(self, root: Path = Path("/")) -> None:
        """Find the packages.

        Args:
            root: The folder that holds ``sys``.
        """
        self._meters: dict[str, tuple[Path, int]] = {}
        self._last: dict[str, int] = {}
        self._wraps: dict[str, int] = {}
        # Zones inside a package are called "intel-rapl:0:1": they are a part of it.
        for folder in sorted((root / "sys/class/powercap").glob("intel-rapl:*")):
            limit = _number(folder / "max_energy_range_uj")
            if folder.name.count(":") == 1 and limit and _number(folder / "energy_uj") is not None:
                name = _text(folder / "name") or folder.name
                self._meters[name] = folder / "energy_uj", limit

    def read(self) -> Reading:
        """Return the energy counted, where the counter began anew with what it counted before."""
        energy: dict[str, float] = {}
        for name, (path, limit) in self._meters.items():
            value = _number(path)
            if value is None:
                continue
            if value < self._last.get(name, value):
                self._wraps[name] = self._wraps.get(name, 0) + 1
            self._last[name] = value
            energy[name] = (value + self._wraps.get(name, 0) * limit) / 1e6
        return Reading(energy_j=energy)


def _named(folder: Path, pattern: str, file: str) -> list[tuple[str, Path]]:
    """Return a file of each subfolder with its type, which a number tells from an equal one."""
    found: dict[str, Path] = {}
    for path in sorted(folder.glob(pattern), key=lambda path: (len(path.name), path.name)):
        name = _text(path / "type")
        if name:
            number = path.name.lstrip("abcdefghijklmnopqrstuvwxyz_")
            found[f"{name} {number}" if name in found else name] = path / file
    return list(found.items())


def _number(path: Path) -> int | None:
    try:
        return int(_text(path))
    except ValueError:
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:  # also what a sensor that sleeps says
        return ""
