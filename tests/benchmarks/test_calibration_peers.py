"""The tables of benchmarks/calibration_peers.py."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from edgecls.drift.candidates import Record, record

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
IMAGES, CLASSES = 200, 8


@pytest.fixture
def peers_report(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("common", "calibration_peers_report"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("calibration_peers_report")


def recorded(spread: float, seed: int) -> Record:
    reference = np.random.default_rng(0).normal(0, 3, (IMAGES, CLASSES)).astype(np.float32)
    noise = np.random.default_rng(seed).normal(0, spread, reference.shape).astype(np.float32)
    names = [str(index) for index in range(IMAGES)]
    return record(names, reference, reference + noise, reference.argmax(1))


def test_rows_are_compared_with_the_default_and_with_the_best(peers_report: ModuleType) -> None:
    rows = [
        peers_report.PeerRow("edgecls minmax", seconds=1.0, record=recorded(0.5, 1)),
        peers_report.PeerRow("edgecls mse", seconds=1.0, record=recorded(0.1, 2)),
        peers_report.PeerRow("peer a", seconds=2.0, record=recorded(0.2, 3)),
        peers_report.PeerRow("peer b", error="does not run"),
    ]
    text, values = peers_report.report("A title", rows)

    assert (values["default"], values["best"]) == ("edgecls minmax", "edgecls mse")
    peer = values["rows"]["peer a"]
    assert peer["against_default"]["sqnr_db"]["verdict"] == "better"
    assert peer["against_best"]["sqnr_db"]["verdict"] == "worse"
    (line,) = (line for line in text.splitlines() if line.startswith("| peer a"))
    assert line.count("better") == 2, "SQNR and KL against the default"
    assert line.count("worse") == 2, "and against the best"
    assert "- peer b failed: `does not run`" in text
    assert "| peer b " in text


def test_an_agreement_that_is_shown_to_differ_is_told(peers_report: ModuleType) -> None:
    rows = [
        peers_report.PeerRow("edgecls minmax", record=recorded(0.1, 1)),
        peers_report.PeerRow("peer", record=recorded(4.0, 2)),
    ]
    text, _ = peers_report.report("A title", rows)

    assert "minmax's: peer's agreement (-" in text


def test_a_default_that_is_the_best_stands_there_once(peers_report: ModuleType) -> None:
    rows = [
        peers_report.PeerRow("edgecls minmax", record=recorded(0.1, 1)),
        peers_report.PeerRow("peer", record=recorded(0.1, 2)),
    ]
    text, values = peers_report.report("A title", rows)

    assert values["best"] == values["default"] == "edgecls minmax"
    assert text.count("SQNR less") == 1
    assert "shown to differ from edgecls minmax's: none of these." in text
