from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from edgecls.core.errors import UsageError
from edgecls.targets.jetpack import (
    COMPUTE_CAPABILITIES,
    JETPACKS,
    L4T_JETPACKS,
    MODULES,
    choose,
    dla_cores,
    get_jetpack,
    get_module,
    module_of,
)
from edgecls.targets.pi_os import PI_OS, pi_os_of
from edgecls.targets.tensorrt_onnx import OPERATORS, SINCE, newest_opset, takes

ROOT = Path(__file__).parent.parent.parent
UBUNTU_PYTHON = {"20.04": (3, 8), "22.04": (3, 10), "24.04": (3, 12)}


def test_the_page_is_the_table() -> None:
    spec = importlib.util.spec_from_file_location("tool", ROOT / "tools" / "compatibility.py")
    assert spec is not None
    assert spec.loader is not None
    tool: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    written = (ROOT / "docs" / "compatibility.md").read_text()

    assert written == tool.page(), "run: python tools/compatibility.py"


def test_every_row_has_its_source_and_is_there_once() -> None:
    rows = [*JETPACKS, *MODULES, *PI_OS]

    assert all(row.sources and all(s.startswith("https://") for s in row.sources) for row in rows)
    for names in (
        [row.version for row in JETPACKS],
        [row.name for row in MODULES],
        [part for row in MODULES for part in row.parts],
        [l4t for row in JETPACKS for l4t in row.l4t],
        [(row.codename, row.bits) for row in PI_OS],
    ):
        assert len(names) == len(set(names))


def test_rows_agree_with_each_other() -> None:
    for row in JETPACKS:
        assert all(L4T_JETPACKS[l4t] == row.version for l4t in row.l4t)
        assert row.python == UBUNTU_PYTHON[row.ubuntu]
        assert any(module.soc in row.socs for module in MODULES)
    assert {module.soc for module in MODULES} == set(COMPUTE_CAPABILITIES)


def test_the_jetpacks_that_run_are_those_of_tensorrt_10_3_and_later() -> None:
    runs = {row.version for row in JETPACKS if row.why_not() is None}

    assert runs == {"6.1", "6.2", "6.2.1", "7.0", "7.1", "7.2", "7.2.1"}
    assert get_jetpack("6.2").tensorrt_release == (10, 3)
    assert get_module("orin-nano").compute_capability == (8, 7)


@pytest.mark.parametrize(
    ("jetpack", "module", "message"),
    [
        ("6.3", None, r"JetPack '6\.3' is not in the table; it has: 5\.1\.1, 6\.1"),
        ("6.2", "orin", r"module 'orin' is not in the table; it has: orin-nano, orin-nx"),
        ("6.2", "agx-thor", r"not for the Jetson AGX Thor.*choose JetPack 7\.0, 7\.1, 7\.2"),
        ("7.1", "orin-nano", r"not for the Jetson Orin Nano.*choose JetPack 6\.1, 6\.2"),
        ("5.1.1", "orin-nano", r"TensorRT 8\.5\.2, expected 10\.3.*choose JetPack 6\.1"),
        ("5.1.1", "xavier-nx", "no JetPack in the table does"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_the_choices(
    jetpack: str, module: str | None, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        choose(jetpack, module)


def test_the_dla_is_there_where_its_tensorrt_drives_it() -> None:
    cores = {(row.version, module.name): dla_cores(row, module)
             for row in JETPACKS for module in MODULES}  # fmt: skip

    assert cores["6.2", "orin-nx-16gb"] == 2
    assert cores["6.2", "orin-nx-8gb"] == 1
    assert cores["6.2", "orin-nano"] == 0
    assert cores["7.2", "agx-orin"] == 0


@pytest.mark.parametrize("module", MODULES, ids=lambda row: row.name)
def test_a_device_tree_names_its_module(module: Any) -> None:
    for part in module.parts:
        assert module_of((f"nvidia,p3768-0000+{part}-super", "nvidia,tegra")) is module
    assert module_of(("raspberrypi,5-model-b",)) is None


def test_pi_os() -> None:
    row = pi_os_of("bookworm", 64)

    assert row is not None
    assert row.runtime.startswith("ai-edge-litert")
    assert pi_os_of("buster", 64) is None


def test_operators_and_opsets_grow() -> None:
    assert set(SINCE) < OPERATORS
    assert takes("Conv", (10, 3))
    assert takes("Attention", (10, 14))
    assert not takes("Attention", (10, 13))
    assert not takes("NoSuchOperator", (99, 0))
    assert [newest_opset(r) for r in ((10, 3), (10, 13), (10, 15), (11, 4))] == [20, 20, 24, 24]
