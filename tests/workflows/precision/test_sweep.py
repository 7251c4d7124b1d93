"""A sweep of the digits, against the answers of its own bundles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

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
    assert found["models"] == [{"name": "lenet5", "float_top1": fp32["top1"]}]
    assert int8["size_bytes"] < fp32["size_bytes"]
    for point in (int8, fp32):
        assert point["lower"] < point["top1"] <= point["upper"]
        assert not point["simulated"]
        assert Bundle(Path(point["bundle"])).manifest.precision == point["precision"]
        again = edgecls(
            "evaluate", point["bundle"], "--data", digits.judged, "--images", 100, "--json"
        )
        assert json.loads(again.out)["top1"] == point["top1"]
    assert int8["front"]


@pytest.mark.slow
def test_two_models_stand_in_one_table(digits: Digits, tmp_path: Path, edgecls: Command) -> None:
    """The second is the first with its head turned by a class: nothing that it says is right."""
    tensors = load_file(digits.weights)
    head = max(name for name in tensors if name.endswith("weight"))
    for name in (head, head.replace("weight", "bias")):
        tensors[name] = np.roll(tensors[name], 1, 0)
    save_file(tensors, tmp_path / "turned.safetensors")
    done = edgecls(
        "sweep", "lenet5", "lenet5", "--weights", digits.weights, "--weights",
        tmp_path / "turned.safetensors", "--calib", digits.train, "--calib-images", 20,
        "--target", "raspberry-pi", "--target", "jetson", "--data", digits.judged, "--images", 50,
        "--precision", "fp32", "--precision", "int8", "-o", tmp_path / "out", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    found = json.loads(done.out)

    good, turned = found["models"]
    assert (good["name"], turned["name"]) == ("lenet5 lenet5.safetensors",
                                              "lenet5 turned.safetensors")  # fmt: skip
    assert good["float_top1"] > 80 > 20 > turned["float_top1"]
    assert [(point["target"], point["model"], point["name"]) for point in found["points"]] == [
        (target, model["name"], precision) for target in ("raspberry-pi", "jetson")
        for model in (good, turned) for precision in ("fp32", "int8")
    ]  # fmt: skip
    for point in found["points"]:
        assert Bundle(Path(point["bundle"])).manifest.target == point["target"]
        assert (point["latency_ms"] is None) == (point["target"] == "jetson")
        if point["model"] == turned["name"] and point["target"] == "jetson":
            assert not point["front"]  # as large as the good one's, and wrong


def test_what_cannot_be_swept_is_refused(digits: Digits, tmp_path: Path, edgecls: Command) -> None:
    common = ["sweep", "lenet5", "--weights", digits.weights, "--calib", digits.train,
              "--data", digits.judged, "-o", tmp_path]  # fmt: skip
    done = edgecls(*common, "--target", "jetson", "--precision", "int8-dynamic")
    assert (done.code, "none of the targets runs int8-dynamic" in done.err) == (2, True)
    for more, text in (
        (["--max-drop", 1], "--max-drop needs images that did not calibrate"),
        (["--tune", digits.judged], "--tune is for --max-drop POINTS or --recipe best"),
        (["--tune", digits.judged, "--recipe", "best", "--precision", "fp32"],
         "--max-drop and --recipe best are for int16x8 or int8"),
    ):  # fmt: skip
        done = edgecls(*common, "--target", "jetson", *more)
        assert (done.code, text in done.err) == (2, True)
    done = edgecls(*common, "lenet5", "--target", "jetson")
    assert (done.code, "--weights is given 1 times for 2 MODELs" in done.err) == (2, True)
    done = edgecls(*common, "lenet5", "--weights", digits.weights, "--target", "jetson")
    assert (done.code, "would be one folder" in done.err) == (2, True)
    done = edgecls(*common, "--target", "jetson", "--report", "a.pdf")
    assert (done.code, "ends in .json or .html" in done.err) == (2, True)
