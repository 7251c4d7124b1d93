"""Methods compared as a command, against each step made by hand."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
import pytest
from PIL import Image
from scipy import special, stats

from edgecls.data.images import ImageFile, list_images, select_images

if TYPE_CHECKING:
    from ..conftest import Command, Digits

CALIBRATED = 40


@pytest.fixture(scope="module")
def judged(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eighty digits that did not train, and three copies of images that calibrate."""
    out = tmp_path_factory.mktemp("compared") / "judged"
    for image in select_images(list_images(digits.judged), 80, 0):
        copy(image, out / image.name)
    for image in select_images(list_images(digits.train), CALIBRATED, 0)[:3]:
        copy(image, out / image.folder / f"copied-{image.path.name}")
    return out


def copy(image: ImageFile, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(image.path, place)


def arguments(digits: Digits, against: Path) -> list[object]:
    return [
        "calibrate", "compare", "lenet5", "--weights", digits.weights, "--data", digits.train,
        "--images", CALIBRATED, "--against", against,
    ]  # fmt: skip


def run(graph: Path, images: list[ImageFile]) -> np.ndarray:
    """Run a graph on MNIST's images with nothing of ours."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    (source,) = session.get_inputs()
    mean, std = 0.1307, 0.3081
    found = []
    for image in images:
        with Image.open(image.path) as opened:
            codes = np.asarray(opened.convert("L"), np.float64)
        tensor = ((codes / 255 - mean) / std).astype(np.float32)[None, None]
        found.append(session.run(None, {source.name: tensor})[0][0])
    return np.array(found, np.float64)


@pytest.mark.slow
def test_every_number_is_that_of_a_calibration_of_its_own(
    digits: Digits, judged: Path, tmp_path: Path, edgecls: Command
) -> None:
    """One pass for all methods gives what one table per method gives, exported and run by hand."""
    done = edgecls(*arguments(digits, judged), "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert (found["calibrated_on"], found["judged_on"], found["overlap"]) == (CALIBRATED, 80, 3)
    assert [scheme["targets"] for scheme in found["schemes"]] == [
        ["jetson", "desktop-gpu"], ["raspberry-pi"], ["desktop-cpu"],
    ]  # fmt: skip
    images = [image for image in list_images(judged) if "copied" not in image.name]
    truth = np.array([int(image.folder.partition("_")[0]) for image in images])
    for method in ("minmax", "mse"):
        table, graphs = tmp_path / f"{method}.json", tmp_path / method
        edgecls("calibrate", "lenet5", "--weights", digits.weights, "--data", digits.train,
                "--images", CALIBRATED, "--method", method, "-o", table)  # fmt: skip
        made = edgecls(
            "export", "lenet5", "--weights", digits.weights, "--calib-table", table,
            "--target", "jetson", "--target", "raspberry-pi", "--target", "desktop-cpu",
            "--keep-graphs", graphs, "-o", tmp_path / "out",
        )  # fmt: skip
        assert made.code == 0, made.err
        expected = run(graphs / "float.onnx", images)
        assert found["float_top1"] == pytest.approx(100 * np.mean(expected.argmax(1) == truth))
        names = ("qdq.fused.symmetric", "qdq.full.asymmetric", "qdq.full.asymmetric.uint8")
        for scheme, name in zip(found["schemes"], names, strict=True):
            logits = run(graphs / f"{name}.onnx", images)
            (row,) = (row for row in scheme["methods"] if row["method"] == method)
            values = {measure: one["value"] for measure, one in row["measures"].items()}
            noise = ((expected - logits) ** 2).sum()
            kl = [
                stats.entropy(*map(special.softmax, pair))
                for pair in zip(expected, logits, strict=True)
            ]
            five = np.argsort(-logits, axis=1)[:, :5]
            by_hand = {
                "agreement": 100 * np.mean(expected.argmax(1) == logits.argmax(1)),
                "sqnr_db": 10 * math.log10((expected**2).sum() / noise),
                "kl": np.mean(kl),
                "top1": 100 * np.mean(logits.argmax(1) == truth),
                "top5": 100 * np.mean((five == truth[:, None]).any(1)),
            }
            assert values == pytest.approx(by_hand, rel=1e-4), (method, name)


def test_the_table_the_plot_and_what_was_left_out(
    digits: Digits, judged: Path, tmp_path: Path, edgecls: Command
) -> None:
    pytest.importorskip("matplotlib")
    options = ["--methods", "percentile", "--percentile", 99, "--target", "raspberry-pi"]
    plot = tmp_path / "plots" / "compared.png"
    done = edgecls(*arguments(digits, judged), *options, "--plot", plot)

    assert done.code == 0, done.err
    assert "judged on 80 others (3 more had calibrated)" in done.out
    assert "minmax" in done.out
    assert "percentile" in done.out
    assert "entropy" not in done.out
    assert any(verdict in done.out for verdict in ("better", "level", "worse"))
    assert "jetson" not in done.out
    with Image.open(plot) as image:
        assert image.format == "PNG"
        assert len(np.unique(np.asarray(image.convert("L")))) > 10, "it is not empty"


def test_what_nobody_could_call_better_is_level(
    digits: Digits, judged: Path, edgecls: Command
) -> None:
    """A percentile of 100 is min-max."""
    options = ["--methods", "percentile", "--percentile", 100, "--target", "raspberry-pi"]
    done = edgecls(*arguments(digits, judged), *options, "--json")
    rows = json.loads(done.out)["schemes"][0]["methods"]

    first, second = (row["measures"] for row in rows)
    for measure, one in second.items():
        assert one["value"] == first[measure]["value"]
        assert one["verdict"] == "level"
        assert one["difference"]["low"] <= 0 <= one["difference"]["high"]


def test_ranges_that_clip_too_much_are_worse(
    digits: Digits, judged: Path, edgecls: Command
) -> None:
    options = ["--methods", "percentile", "--percentile", 60, "--target", "raspberry-pi"]
    done = edgecls(*arguments(digits, judged), *options, "--json")

    found: dict[str, Any] = json.loads(done.out)["schemes"][0]["methods"][1]["measures"]
    assert {found[measure]["verdict"] for measure in ("agreement", "sqnr_db", "kl", "top1")} == {
        "worse"
    }
    assert found["sqnr_db"]["difference"]["high"] < 0 < found["kl"]["difference"]["low"]


def test_without_folders_there_is_no_accuracy(
    digits: Digits, judged: Path, tmp_path: Path, edgecls: Command
) -> None:
    for image in list_images(judged)[:6]:
        copy(image, tmp_path / image.name.replace("/", "-"))
    (tmp_path / "broken.png").write_bytes(b"<html>")
    done = edgecls(*arguments(digits, tmp_path), "--precision", "int16x8", "--json")

    found = json.loads(done.out)
    assert found["unreadable"] == 1
    assert found["float_top1"] is None
    (scheme,) = found["schemes"]
    assert scheme["targets"] == ["raspberry-pi"]
    assert scheme["scheme"]["activation_bits"] == 16
    assert all(set(row["measures"]) == {"agreement", "sqnr_db", "kl"} for row in scheme["methods"])
    assert "broken.png" in done.err


@pytest.mark.parametrize(
    ("options", "code", "reason"),
    [
        (["--plot", "plot.jpg"], 2, "--plot FILE.png"),
        (["--precision", "int16x8", "--target", "jetson"], 2, "jetson does not run int16x8"),
    ],
)
def test_options_that_make_no_sense(
    digits: Digits, judged: Path, edgecls: Command, options: list[str], code: int, reason: str
) -> None:
    done = edgecls(*arguments(digits, judged), *options)

    assert done.code == code
    assert reason in done.err


def test_images_that_calibrated_judge_nothing(
    digits: Digits, tmp_path: Path, edgecls: Command
) -> None:
    for image in select_images(list_images(digits.train), CALIBRATED, 0)[:5]:
        copy(image, tmp_path / image.name)
    done = edgecls(*arguments(digits, tmp_path))

    assert done.code == 4
    assert "5 have calibrated" in done.err
