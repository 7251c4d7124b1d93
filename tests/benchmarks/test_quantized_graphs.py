"""The tables of benchmarks/quantized_graphs.py."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def quantized_report(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("common", "quantized_graphs_report"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("quantized_graphs_report")


def logits(*classes: int) -> np.ndarray:
    return np.eye(4, dtype=np.float32)[list(classes)] * 2


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_file_is_compared_with_its_graph_and_the_graph_with_the_network(
    quantized_report: ModuleType,
) -> None:
    network, graph, tflite = logits(0, 1, 2, 3), logits(0, 1, 2, 0), logits(0, 1, 3, 0)

    found = quantized_report.compared(network, graph, tflite, truth=(0, 0, 3, 0))

    assert (found.like_float, found.same_top1, found.difference) == (75.0, 75.0, 1.0)
    assert (found.graph_top1, found.tflite_top1) == (50.0, 75.0)


def test_a_row_says_what_was_left_in_float_and_what_tensorrt_takes(
    quantized_report: ModuleType,
) -> None:
    answers = quantized_report.compared(logits(0, 1), logits(0, 1), logits(0, 1), truth=(0, 2))
    row = quantized_report.Row(
        "a tool", "its way", left=21, filled=0, lowest_codes=187, answers=answers, tensorrt="yes"
    )

    lines = quantized_report.report("A network", [row]).splitlines()

    assert lines[0] == "### A network"
    assert dict(zip(cells(lines[2]), cells(lines[4]), strict=True)) == {
        "tool": "a tool",
        "how": "its way",
        "as it is": "21",
        "filled": "0",
        "codes -128": "187",
        "top-1, graph -> TFLite": "50.0 -> 50.0",
        "graph like float": "100.0",
        "TFLite like graph": "100.0",
        "difference": "0.000",
        "TensorRT-RTX": "yes",
    }


def test_random_weights_have_no_accuracy_and_failures_stand_below(
    quantized_report: ModuleType,
) -> None:
    answers = quantized_report.compared(logits(0), logits(0), logits(1), truth=None)
    rows = [
        quantized_report.Row("a", "refused as it is", filled=3, answers=answers),
        quantized_report.Row("b", "no graph", "ValueError: no", tensorrt="zero points"),
    ]

    lines = quantized_report.report("A network", rows).splitlines()
    refused, failed = (dict(zip(cells(lines[2]), cells(line), strict=True)) for line in lines[4:6])

    assert "top-1, graph -> TFLite" not in refused
    assert (refused["as it is"], refused["filled"]) == ("refused", "3")
    assert refused["TFLite like graph"] == "0.0"
    assert (failed["as it is"], failed["TensorRT-RTX"]) == ("failed", "zero points")
    assert lines[-1] == "- b, no graph: `ValueError: no`"
