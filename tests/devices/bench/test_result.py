from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecls.core.errors import BadInputError
from edgecls.devices.bench.machine import describe
from edgecls.devices.bench.result import Times, read_result


@given(st.lists(st.floats(0.001, 1e4), min_size=1, max_size=300))
def test_percentiles_are_the_inverse_of_the_distribution(runs: list[float]) -> None:
    found = Times.of(runs)

    expected = np.quantile(runs, [0.5, 0.9, 0.99], method="inverted_cdf")
    assert (found.p50, found.p90) == tuple(expected[:2])
    assert found.p99 == (expected[2] if len(runs) >= 100 else None)


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b'{"schema_version": 1}'])
def test_another_file_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(data)

    with pytest.raises(BadInputError, match=r"a\.json: expected a file of edgecls bench -o"):
        read_result(path)
    with pytest.raises(BadInputError, match="No such file"):
        read_result(tmp_path / "none.json")


def test_the_machine_as_a_pi_shows_it(tmp_path: Path) -> None:
    for name, text in {
        "proc/cpuinfo": "processor\t: 0\nBogoMIPS\t: 108.00\n\nModel\t\t: Raspberry Pi 5\n",
        "proc/meminfo": "MemTotal:        8256816 kB\nMemFree:         7000000 kB\n",
        "sys/devices/system/cpu/cpufreq/policy0/scaling_governor": "ondemand\n",
        "sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq": "2400000\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = {finding.name: finding.detail for finding in describe(tmp_path)}

    assert (found["memory"], found["governor"]) == ("8256816 kB", "ondemand")
    assert found["highest clock"] == "2400 MHz"
    assert "processor" not in found
    assert {"machine", "python", "kernel"} <= set(found)
