"""Each sensor on what a board of its kind shows, as it is laid out there."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgecls.devices.bench import nvidia
from edgecls.devices.bench.nvidia import Jtop, Nvml, open_jtop, open_nvml
from edgecls.devices.bench.reading import Reading, read_all
from edgecls.devices.bench.sysfs import Rapl, Sysfs
from edgecls.devices.bench.vcgencmd import VcGenCmd

PI5 = {
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "62850\n",
    "sys/class/thermal/cooling_device0/type": "pwm-fan\n",
    "sys/class/thermal/cooling_device0/cur_state": "2\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "2400000\n",
}
ORIN = {
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "51031\n",
    "sys/class/thermal/thermal_zone1/type": "gpu-thermal\n",
    "sys/class/thermal/thermal_zone1/temp": "-256000\n",
    "sys/class/thermal/thermal_zone2/type": "cv0-thermal\n",
    "sys/class/thermal/cooling_device3/type": "cpu-throttle-alert\n",
    "sys/class/thermal/cooling_device3/cur_state": "1\n",
    "sys/class/thermal/cooling_device4/type": "gpu-throttle-alert\n",
    "sys/class/thermal/cooling_device4/cur_state": "0\n",
    "sys/class/thermal/cooling_device5/type": "pwm-fan\n",
    "sys/class/thermal/cooling_device5/cur_state": "3\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "729600\n",
    "sys/devices/system/cpu/cpufreq/policy4/scaling_cur_freq": "1510400\n",
}
PC = {
    "sys/class/thermal/thermal_zone0/type": "acpitz\n",
    "sys/class/thermal/thermal_zone0/temp": "27800\n",
    "sys/class/thermal/thermal_zone1/type": "acpitz\n",
    "sys/class/thermal/thermal_zone1/temp": "29800\n",
    "sys/class/thermal/cooling_device0/type": "Processor\n",
    "sys/class/thermal/cooling_device0/cur_state": "0\n",
    "sys/class/thermal/cooling_device1/type": "intel_powerclamp\n",
    "sys/class/thermal/cooling_device1/cur_state": "-1\n",
    "sys/class/thermal/cooling_device2/type": "TCC Offset\n",
    "sys/class/thermal/cooling_device2/cur_state": "10\n",
    "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "3\n",
    "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": "4\n",
    "sys/class/powercap/intel-rapl:0/name": "package-0\n",
    "sys/class/powercap/intel-rapl:0/energy_uj": "5000000\n",
    "sys/class/powercap/intel-rapl:0/max_energy_range_uj": "262143328850\n",
    "sys/class/powercap/intel-rapl:0:0/name": "core\n",
    "sys/class/powercap/intel-rapl:0:0/energy_uj": "3000000\n",
    "sys/class/powercap/intel-rapl:0:0/max_energy_range_uj": "262143328850\n",
}


def plant(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_raspberry_pi(tmp_path: Path) -> None:
    found = Sysfs(plant(tmp_path, PI5)).read()

    assert found == Reading(temperatures_c={"cpu-thermal": 62.85}, clocks_mhz={"cpu": 2400.0})


def test_a_jetson(tmp_path: Path) -> None:
    """A zone that sleeps has no value, a fan cools without slowing down."""
    found = Sysfs(plant(tmp_path, ORIN)).read()

    assert found == Reading(
        temperatures_c={"cpu-thermal": 51.031},
        clocks_mhz={"cpu": 1510.4},
        throttled={"cooled by cpu-throttle-alert": True, "cooled by gpu-throttle-alert": False},
    )


def test_a_pc(tmp_path: Path) -> None:
    found = Sysfs(plant(tmp_path, PC)).read()

    assert found == Reading(
        temperatures_c={"acpitz": 27.8, "acpitz 1": 29.8},
        throttled={"cooled by Processor": False, "cooled by intel_powerclamp": False},
        events={"cores throttled": 7},
    )


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    found = read_all([Sysfs(tmp_path), Rapl(tmp_path)], 3.0)

    assert found == Reading(at_s=3.0)
    assert not found.tells


def test_the_energy_of_packages_goes_on_where_a_counter_begins_anew(tmp_path: Path) -> None:
    plant(tmp_path, PC)
    counter = tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj"
    sensor = Rapl(tmp_path)
    found = []
    for value in (262143000000, 1000000, 2000000):
        counter.write_text(str(value))
        found.append(sensor.read().energy_j)

    assert [list(energy) for energy in found] == [["package-0"]] * 3
    steps = [found[1]["package-0"] - found[0]["package-0"],
             found[2]["package-0"] - found[1]["package-0"]]  # fmt: skip
    assert steps == pytest.approx([0.32885 + 1.0, 1.0])


def script(folder: Path, throttled: str) -> str:
    path = folder / "vcgencmd"
    path.write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        f"get_throttled) echo 'throttled={throttled}' ;;\n"
        "'measure_clock arm') echo 'frequency(0)=1500019456' ;;\n"
        "*) exit 255 ;;\n"
        "esac\n"
    )
    path.chmod(0o755)
    return str(path)


def test_the_firmware_of_a_raspberry_pi(tmp_path: Path) -> None:
    """0x50005: under-voltage and throttled, now and before."""
    found = VcGenCmd(script(tmp_path, "0x50005")).read()

    assert found.clocks_mhz == {"arm": 1500.019456}
    assert [name for name, active in found.throttled.items() if active] == [
        "under-voltage", "throttled",
    ]  # fmt: skip
    assert found.events == {
        "under-voltage": 1, "ARM frequency capped": 0, "throttled": 1, "soft temperature limit": 0,
    }  # fmt: skip


def test_a_pi_that_is_well_says_so(tmp_path: Path) -> None:
    found = VcGenCmd(script(tmp_path, "0x0")).read()

    assert set(found.throttled.values()) == {False}
    assert set(found.events.values()) == {0}


def test_a_firmware_that_does_not_answer_tells_nothing(tmp_path: Path) -> None:
    path = script(tmp_path, "0x0")
    Path(path).write_text("#!/bin/sh\necho VCHI initialization failed\nexit 255\n")

    assert not VcGenCmd(path).read().tells
    assert not VcGenCmd(os.fspath(tmp_path / "none")).read().tells


class Library:
    """As much of pynvml as is asked of it."""

    NVML_CLOCK_SM = 1
    NVML_TEMPERATURE_GPU = 0

    class NVMLError(Exception):
        pass

    def __init__(self, *, count: int = 1, driver: bool = True, **values: int) -> None:
        self.count, self.driver, self.values = count, driver, values

    def nvmlInit(self) -> None:  # noqa: N802
        if not self.driver:
            raise self.NVMLError("Driver Not Loaded")

    def nvmlShutdown(self) -> None:  # noqa: N802
        pass

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return self.count

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        return f"gpu {index}"

    def __getattr__(self, name: str) -> Any:
        def ask(handle: str, *arguments: int) -> int:
            assert handle == "gpu 0"
            if name not in self.values:
                raise self.NVMLError("Not Supported")
            return self.values[name]

        return ask


def test_a_gpu() -> None:
    library = Library(
        nvmlDeviceGetClockInfo=1980,
        nvmlDeviceGetTemperature=71,
        nvmlDeviceGetCurrentClocksThrottleReasons=0x24 | 1,
        nvmlDeviceGetTotalEnergyConsumption=2500,
    )
    found = Nvml(library, "gpu 0").read()

    assert (found.clocks_mhz, found.temperatures_c) == ({"gpu": 1980.0}, {"gpu": 71.0})
    assert [name for name, active in found.throttled.items() if active] == [
        "GPU power cap", "GPU thermal slowdown",
    ]  # fmt: skip
    assert found.energy_j == {"gpu": 2.5}


def test_a_gpu_that_does_not_tell() -> None:
    assert not Nvml(Library(), "gpu 0").read().tells


@pytest.mark.parametrize(
    ("library", "expected"),
    [(Library(), True), (Library(count=2), False), (Library(driver=False), False)],
)
def test_a_gpu_is_watched_where_it_is_the_only_one(
    monkeypatch: pytest.MonkeyPatch, library: Library, expected: bool
) -> None:
    monkeypatch.setattr(nvidia, "importlib", SimpleNamespace(import_module=lambda _: library))
    monkeypatch.setattr(nvidia, "atexit", SimpleNamespace(register=lambda _: None))

    assert (open_nvml() is not None) == expected


JETSON = SimpleNamespace(
    cpu={"total": {}, "cpu": [{"online": True, "freq": {"cur": 1510400, "max": 1510400}},
                              {"online": True, "freq": {"cur": 729600}}, {"online": False}]},
    gpu={"gpu": {"type": "integrated", "freq": {"cur": 624750, "max": 624750}}},
    temperature={"CPU": {"temp": 48.2, "online": True}, "cv0": {"temp": -256, "online": False}},
    power={"rail": {"VDD_SOC": {"power": 1400}}, "tot": {"power": 5120, "avg": 5000}},
)  # fmt: skip


def test_a_jetson_through_jetson_stats() -> None:
    found = Jtop(JETSON).read()

    assert found == Reading(
        clocks_mhz={"cpu": 1510.4, "gpu": 624.75}, temperatures_c={"CPU": 48.2},
        power_w={"board": 5.12},
    )  # fmt: skip


def test_a_jetson_whose_service_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    class JtopException(Exception):  # noqa: N818 - its name there
        pass

    def start() -> None:
        raise JtopException("The jtop.service is not active")

    library = SimpleNamespace(
        JtopException=JtopException, jtop=lambda interval: SimpleNamespace(start=start)
    )
    monkeypatch.setattr(nvidia, "importlib", SimpleNamespace(import_module=lambda _: library))

    assert open_jtop() is None


def test_libraries_that_are_not_installed() -> None:
    import importlib.util

    if importlib.util.find_spec("jtop") is None:
        assert open_jtop() is None
    if importlib.util.find_spec("pynvml") is None:
        assert open_nvml() is None
