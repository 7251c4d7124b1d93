"""Calibration as a command: tables, parts, plots, and a doctor that finds what is planted."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from edgecls.bundle import Bundle
from edgecls.calibration.table_file import read_table
from edgecls.data.images import list_images

if TYPE_CHECKING:
    from ..conftest import Command, Digits


@pytest.fixture(scope="module")
def table(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from edgecls.cli.main import main

    out = tmp_path_factory.mktemp("calibrated") / "table.json"
    with pytest.raises(SystemExit) as stop:
        main(["calibrate", *model(digits), "--images", "40", "-o", str(out)])
    assert not stop.value.code
    return out


def model(digits: Digits, data: Path | None = None) -> list[str]:
    return ["lenet5", "--weights", str(digits.weights), "--data", str(data or digits.train)]


def test_parts_add_up_to_the_table_of_one_run(
    digits: Digits, table: Path, tmp_path: Path, edgecls: Command
) -> None:
    for part in ("3", "1", "2"):
        out = tmp_path / f"{part}.json"
        done = edgecls(
            "calibrate", *model(digits), "--images", 40, "--part", f"{part}/3", "-o", out
        )
        assert done.code == 0
        assert f"part {part} of 3" in done.out
    parts = [tmp_path / f"{n}.json" for n in (2, 3, 1)]
    done = edgecls("calibrate", "merge", *parts, "-o", tmp_path / "merged.json")

    assert done.code == 0, done.err
    assert (tmp_path / "merged.json").read_bytes() == table.read_bytes()
    part_export = edgecls(
        "export", "lenet5", "--weights", digits.weights, "--target", "raspberry-pi",
        "--calib-table", parts[0], "-o", tmp_path,
    )  # fmt: skip
    assert part_export.code == 4
    assert "only part 2 of 3" in part_export.err


def test_an_export_with_the_table_is_the_one_that_calibrates_itself(
    digits: Digits, table: Path, tmp_path: Path, edgecls: Command
) -> None:
    common = ["export", "lenet5", "--weights", digits.weights, "--target", "raspberry-pi"]
    images = ["--calib", digits.train, "--calib-images", "40"]
    for name, options in (
        ("itself", images),
        ("table", [*images, "--calib-table", table]),
        ("only", ["--calib-table", table]),
    ):
        done = edgecls(*common, *options, "-o", tmp_path / name)
        assert done.code == 0, done.err
    assert "golden samples are synthetic" in done.err
    itself, given, only = (
        Bundle(tmp_path / name / "raspberry-pi").manifest for name in ("itself", "table", "only")
    )

    assert given == itself
    assert only.golden_source == "synthetic"
    assert only.files["model.int8.tflite"] == itself.files["model.int8.tflite"]
    assert only.calibration == itself.calibration
    assert only.fingerprint == itself.fingerprint


def test_a_table_is_refused_for_another_model(
    digits: Digits, table: Path, tmp_path: Path, edgecls: Command
) -> None:
    done = edgecls(
        "export", "lenet5", "--allow-random-weights", "--target", "raspberry-pi",
        "--calib-table", table, "-o", tmp_path,
    )  # fmt: skip

    assert done.code == 4
    assert "calibrate this model" in done.err
    assert not (tmp_path / "raspberry-pi").exists()


def test_show_plots_every_tensor(table: Path, tmp_path: Path, edgecls: Command) -> None:
    pytest.importorskip("matplotlib")

    done = edgecls("calibrate", "show", table, "-o", tmp_path / "plots", "--json")

    plots = [Path(name) for name in json.loads(done.out)["plots"]]
    assert plots[0] == tmp_path / "plots" / "overview.png"
    assert len(plots) == 1 + len(read_table(table).tensors)
    for plot in plots:
        with Image.open(plot) as image:
            assert image.format == "PNG"
            assert len(np.unique(np.asarray(image.convert("L")))) > 10, "it is not empty"


def test_diff_with_itself_another_method_and_a_cache(
    digits: Digits, table: Path, tmp_path: Path, edgecls: Command
) -> None:
    other, cache = tmp_path / "other.json", tmp_path / "trt.cache"
    edgecls("calibrate", *model(digits), "--images", 40, "--method", "percentile",
            "--percentile", 99, "-o", other)  # fmt: skip
    edgecls("calibrate", "merge", other, "-o", cache, "--format", "trt-cache")

    same = edgecls("calibrate", "diff", table, table, "--max-difference", 0)
    moved = edgecls("calibrate", "diff", table, other, "--max-difference", 1, "--json")
    cached = edgecls("calibrate", "diff", other, cache, "--max-difference", 0.0001)

    assert same.code == 0
    assert moved.code == 1
    found = json.loads(moved.out)
    assert found["largest_percent"] > 1
    assert found["tensors"][0]["percent"] == found["largest_percent"]
    assert cached.code == 0, cached.err


@pytest.mark.parametrize(
    ("options", "code", "reason"),
    [
        (["--part", "4/3", "-o", "t"], 2, "1 <= I <= N"),
        (["--part", "one", "-o", "t"], 2, "I/N"),
        ([], 2, "nowhere to write"),
        (["--check", "-o", "t"], 2, "writes no table"),
        (["--against", "."], 2, "--against is for --check"),
        (["--percentile", "99"], 2, "--percentile is for --method percentile"),
        (["--method", "percentile", "--percentile", "nan", "-o", "t"], 2, "nan"),
        (["--part", "1/2", "--format", "trt-cache", "-o", "t"], 2, "merge the parts first"),
    ],
)
def test_options_that_make_no_sense(
    digits: Digits, edgecls: Command, options: list[str], code: int, reason: str
) -> None:
    done = edgecls("calibrate", *model(digits), *options)

    assert done.code == code
    assert reason in done.err


def copy_some(source: Path, out: Path, count: int, seed: int = 0) -> list[Path]:
    """Copy ``count`` random images with their folders."""
    made = []
    for image in random.Random(seed).sample(list_images(source), count):
        place = out / image.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(image.path.read_bytes())
        made.append(place)
    return made


def kinds(done_out: str) -> set[str]:
    return {finding["kind"] for finding in json.loads(done_out)["findings"]}


def check(edgecls: Command, digits: Digits, data: Path, *options: object) -> set[str]:
    done = edgecls(
        "calibrate", *model(digits, data), "--check", "--images", 1000, "--json", *options
    )
    assert done.code == (1 if kinds(done.out) else 0), done.err
    return kinds(done.out)


def test_a_good_set_has_no_findings(digits: Digits, tmp_path: Path, edgecls: Command) -> None:
    copy_some(digits.train, tmp_path / "good", 200)

    assert check(edgecls, digits, tmp_path / "good", "--against", digits.judged) == set()
    text = edgecls("calibrate", *model(digits, tmp_path / "good"), "--check")
    assert text.code == 0
    assert "no findings" in text.out


def test_each_planted_fault_is_found(digits: Digits, tmp_path: Path, edgecls: Command) -> None:
    few = tmp_path / "few"
    copy_some(digits.train, few, 8)
    assert "too-few-images" in check(edgecls, digits, few)

    uneven = tmp_path / "uneven"
    copy_some(digits.train, uneven, 60)
    for image in list_images(digits.train):
        if image.folder.endswith("3"):
            place = uneven / image.name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(image.path.read_bytes())
    assert "unbalanced-classes" in check(edgecls, digits, uneven)

    flat = tmp_path / "flat"  # no folders: only the model's answers can tell
    flat.mkdir()
    for image in list_images(uneven):
        (flat / image.name.replace("/", "-")).write_bytes(image.path.read_bytes())
    assert "unbalanced-classes" in check(edgecls, digits, flat)

    broken = tmp_path / "broken"
    copy_some(digits.train, broken, 100)[0].write_bytes(b"<html>")
    assert check(edgecls, digits, broken) == {"unreadable-images"}

    copied = tmp_path / "copied"
    first = copy_some(digits.train, copied, 100)[0]
    first.with_name("again.png").write_bytes(first.read_bytes())
    assert check(edgecls, digits, copied) == {"duplicates"}


def test_two_bright_images_among_dark_ones_are_found(
    digits: Digits, tmp_path: Path, edgecls: Command
) -> None:
    """A few images hold the ends of the ranges: another draw would miss them."""
    images = copy_some(digits.train, tmp_path / "mixed", 40)
    named = {"not-converged", "seed-sensitive"}
    assert not named & check(edgecls, digits, tmp_path / "mixed")
    for index, path in enumerate(images):
        if index % 20:
            with Image.open(path) as image:
                dark = image.point(lambda code: int(code * 0.15))
            dark.save(path)

    assert named <= check(edgecls, digits, tmp_path / "mixed")


def test_an_unreadable_folder_leaks_nothing_and_says_so(
    digits: Digits, tmp_path: Path, edgecls: Command
) -> None:
    copy_some(digits.train, tmp_path / "good", 100)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"<html>")
    done = edgecls(
        "calibrate", *model(digits, tmp_path / "good"), "--check", "--against", tmp_path / "broken"
    )

    assert done.code == 4
    assert "none of 1 images" in done.err


def test_leaked_images_are_found_even_in_another_encoding(
    digits: Digits, tmp_path: Path, edgecls: Command
) -> None:
    calibration, judged = tmp_path / "calibration", tmp_path / "judged"
    images = copy_some(digits.train, calibration, 100)
    copy_some(digits.judged, judged, 50)
    (judged / "exact.png").write_bytes(images[0].read_bytes())
    exact = edgecls("calibrate", *model(digits, calibration), "--check", "--against", judged)
    (judged / "exact.png").unlink()
    with Image.open(images[1]) as image:
        image.point(lambda code: int(code * 0.8)).save(judged / "near.jpg", quality=90)
    near = edgecls("calibrate", *model(digits, calibration), "--check", "--against", judged)

    assert exact.code == near.code == 1
    assert "are calibration images, e.g. exact.png" in exact.out
    assert "near.jpg (like" in near.out


def test_an_image_that_dominates_is_named(tmp_path: Path, edgecls: Command) -> None:
    """Full contrast among hazy pictures, in a network of ReLUs: LeNet's tanh would not show it."""
    rng = np.random.default_rng(0)
    for index in range(60):
        haze = rng.integers(100, 156, (32, 32, 3), np.uint8)
        Image.fromarray(haze).save(tmp_path / f"{index:02}.png")
    command = [
        "calibrate", "cifar_resnet20", "--allow-random-weights", "--preprocess", "cifar10",
        "--data", tmp_path, "--check", "--json",
    ]  # fmt: skip
    assert "dominating-image" not in kinds(edgecls(*command).out)

    stark = rng.integers(0, 2, (32, 32, 3), np.uint8) * 255
    Image.fromarray(stark).save(tmp_path / "stark.png")
    done = edgecls(*command)

    assert done.code == 1
    (finding,) = (f for f in json.loads(done.out)["findings"] if f["kind"] == "dominating-image")
    assert finding["found"].startswith("stark.png alone widens")


@pytest.mark.slow
def test_memory_does_not_grow_with_the_images(digits: Digits, tmp_path: Path) -> None:
    """Peak memory for 1,000 images is within 5 % of that for 100."""
    code = (
        "import sys, edgecls.cli.main as m\n"
        "try: m.main(sys.argv[1:])\n"
        "except SystemExit as stop: assert not stop.code\n"
        "line = next(l for l in open('/proc/self/status') if l.startswith('VmHWM'))\n"
        "print('peak', line.split()[1])\n"
    )
    peaks = []
    for images in (100, 1000):
        command = [sys.executable, "-c", code, "calibrate", *model(digits), "--images",
                   str(images), "--method", "entropy", "-o", str(tmp_path / "t.json")]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
        peaks.append(int(done.stdout.split()[-1]))

    assert peaks[1] <= 1.05 * peaks[0], peaks
