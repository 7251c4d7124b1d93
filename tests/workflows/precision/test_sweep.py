"""A sweep of the digits, against the answers of its own bundles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgecls.bundle import Bundle

if TYPE_CHECKING:
    from ...conftest import Command, Digits


@pytest.mark.slow
def test_a_sweep_of_two_precisions(digits: Digits, tmp_path: Path, edgecls: Command) -> None:
    common = ["--weights", digits.weights, "--calib", digits.train, "--calib-images", 40]
    done = edgecls(
        "sweep", "lenet5", *common, "--target", "raspberry-pi", "--data", digits.judged,
        "--images", 100, "--precision", "int8", "--precision", "fp32", "-o", tmp_path / "out",
        "--report", tmp_path / "s.html", "--report", tmp_path / "s.json", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    found = json.loads(done.out)

    assert json.loads((tmp_path / "s.json").read_text()) == found
    assert "raspberry-pi" in (tmp_path / "s.html").read_text()
    assert (found["images"], found["overlap"]) == (100, 0)
    int8, fp32 = found["points"]
    assert (int8["name"], fp32["name"]) == ("int8", "fp32")
    assert fp32["top1"] == found["float_top1"]
    assert int8["size_bytes"] < fp32["size_bytes"]
    for point in (int8, fp32):
        assert point["lower"] < point["top1"] <= point["upper"]
        assert not point["simulated"]
        assert Bundle(Path(point["bundle"])).manifest.precision == point["precision"]
    assert int8["front"]


def test_what_cannot_be_swept_is_refused(digits: Digits, tmp_path: Path, edgecls: Command) -> None:
    common = ["sweep", "lenet5", "--weights", digits.weights, "--calib", digits.train,
              "--data", digits.judged, "-o", tmp_path]  # fmt: skip
    done = edgecls(*common, "--target", "jetson", "--precision", "int8-dynamic")
    assert (done.code, "none of the targets runs int8-dynamic" in done.err) == (2, True)
    done = edgecls(*common, "--target", "jetson", "--report", "a.pdf")
    assert (done.code, "ends in .json or .html" in done.err) == (2, True)
