"""The arithmetic and the tables of benchmarks/converters.py."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def converters_report(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("common", "converters_report"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("converters_report")


def test_a_slow_round_changes_no_ratio(converters_report: ModuleType) -> None:
    generator = np.random.default_rng(0)
    true = np.array([2.0, 2.0, 1.6, 3.2])
    slowdown = generator.uniform(1.0, 5.0, 50)
    blocks = (true[:, None] * slowdown).tolist()

    found = converters_report.ratios(blocks, control=1)

    assert found == pytest.approx([1.25, 1.25, 1.0, 2.0])


def test_the_control_is_never_the_best(converters_report: ModuleType) -> None:
    found = converters_report.ratios([[1.0, 1.0], [0.5, 0.5], [2.0, 2.0]], control=1)

    assert found == pytest.approx([1.0, 0.5, 2.0])


def test_a_table_with_a_control_and_a_failure(converters_report: ModuleType) -> None:
    made = converters_report.Row(
        "edgecls", seconds={"torch -> ONNX": 6.0, "lower": 0.5}, process_s=9.0,
        peak_bytes=800_000_000, size_bytes=18_550_000, operators={"CONV_2D": 33, "TRANSPOSE": 2},
        difference=5e-7, latency_ms=5.25, to_best=1.0, top1=87.25, agreement=100.0,
    )  # fmt: skip
    control = converters_report.Row("edgecls, again", latency_ms=5.3, to_best=1.01)
    failed = converters_report.Row("peer", error="RuntimeError: no | such thing")

    text = converters_report.report("lite0, fp32", [made, control, failed])

    rows = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert cells[0][:3] == ["", "conversion", "process"]
    assert cells[2] == [
        "edgecls", "6.5 s", "9.0 s", "800 MB", "18.55 MB", "35", "2", "5.0e-07", "5.25 ms",
        "1.000", "87.25 %", "100.00 %",
    ]  # fmt: skip
    assert cells[3] == ["edgecls, again", *[""] * 7, "5.30 ms", "1.010", "", ""]
    assert cells[4] == ["peer", "failed", *[""] * 10]
    assert "- edgecls: torch -> ONNX 6.00 s, lower 0.50 s" in text
    assert "- peer failed: `RuntimeError: no | such thing`" in text


def test_an_environment_that_cannot_be_made_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    environments = importlib.import_module("converters_environments")
    environment = environments.Environment("onnx2tf", str(tmp_path / "no-python"), tmp_path)

    before = environment.state()
    environment.make()
    after = environment.state()

    assert "--make-envs" in before["error"]
    assert after.keys() == {"error"}
    assert "no-python" in after["error"]
