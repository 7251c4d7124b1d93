"""`edgecls recipe`: its table against an oracle, what it refuses, and what it does not do again."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgecls as package
from edgecls.bundle import Bundle
from edgecls.drift.paired import Paired, lower_bound, upper_bound
from edgecls.workflows import prune as prune_module
from edgecls.workflows.recipe import run as run_module
from edgecls.workflows.recipe import stages as stages_module

from .learned import train_lenet, write_digits

Command = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("one_thread")

FILE = """
[recipe]
model = "{root}/run"
data = "{root}/train"
val = "{root}/val"
judge = "{root}/judge"
target = ["raspberry-pi", "desktop-cpu"]
threads = 1

[prune]
until = "params=0.5x"
round-to = 2
epochs = 0
augment = "none"

[export]
calib = "{root}/train"
calib-images = 20

[drift]
max-drop = 30
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits to learn from, to choose by and to judge by; and a LeNet that learned from many."""
    root = tmp_path_factory.mktemp("digits")
    write_digits(
        root, train=slice(0, 4800, 16), many=slice(0, None, 5), val=slice(1, None, 50),
        judge=slice(2, None, 25),
    )  # fmt: skip
    train_lenet(root, "many", "run")
    return root


@dataclass(frozen=True)
class Cooked:
    """A recipe that was run."""

    file: Path
    out: Path
    code: int


@pytest.fixture(scope="module")
def cooked(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Cooked:
    folder = tmp_path_factory.mktemp("cooked")
    file, out = folder / "edgecls.toml", folder / "out"
    file.write_text(FILE.format(root=root))
    return Cooked(file=file, out=out, code=quiet("recipe", "-c", file, "-o", out))


@pytest.fixture
def copied(cooked: Cooked, tmp_path: Path) -> Cooked:
    """The same, to be changed; paths in it are the same relative to its folder."""
    shutil.copy(cooked.file, tmp_path)
    shutil.copytree(cooked.out, tmp_path / "out")
    return Cooked(file=tmp_path / "edgecls.toml", out=tmp_path / "out", code=cooked.code)


def quiet(*arguments: object) -> int:
    from edgecls.cli.main import main

    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    assert isinstance(stop.value.code, int)
    return stop.value.code


def table(out: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((out / "recipe.json").read_text())["steps"]
    return found


def right_answers(bundle: Path, judge: Path) -> np.ndarray:
    predictor = package.load(bundle, threads=1)
    folders = sorted(folder for folder in judge.iterdir())
    return np.asarray(
        [
            predictor.predict(image).top1.index == place
            for place, folder in enumerate(folders)
            for image in sorted(folder.iterdir())
        ]
    )


def test_the_table_is_what_the_files_answer(root: Path, cooked: Cooked) -> None:
    """Each row against its file: asked image by image through `predict`, and weighed."""
    out, rows = cooked.out, table(cooked.out)

    bundles = [
        out / "files/start/raspberry-pi", out / "files/prune/raspberry-pi",
        out / "bundles/raspberry-pi", out / "bundles/desktop-cpu",
    ]  # fmt: skip
    assert cooked.code == 0
    assert [(row["stage"], row["target"], row["precision"]) for row in rows] == [
        ("start", "raspberry-pi", "fp32"), ("prune", "raspberry-pi", "fp32"),
        ("export", "raspberry-pi", "int8"), ("export", "desktop-cpu", "int8"),
    ]  # fmt: skip
    right = [right_answers(bundle, root / "judge") for bundle in bundles]
    befores = (None, 0, 1, 1)
    for row, bundle, mine, before in zip(rows, bundles, right, befores, strict=True):
        model = next(file for file in bundle.iterdir() if file.name.startswith("model."))
        assert row["size_bytes"] == model.stat().st_size
        assert row["images"] == 200
        assert row["top1"]["value"] == pytest.approx(100 * mine.mean())
        assert row["top1"]["low"] < row["top1"]["value"] < row["top1"]["high"]
        for name, other in (("points", before), ("points_from_start", 0)):
            if before is None or other is None:
                assert row[name] is None
                continue
            lost = int((right[other] & ~mine).sum())
            gained = int((mine & ~right[other]).sum())
            counts = Paired(lost, gained, 200)
            assert row[name]["value"] == pytest.approx(100 * (gained - lost) / 200)
            assert row[name]["low"] == pytest.approx(-100 * upper_bound(counts, 0.025, 0.0))
            assert row[name]["high"] == pytest.approx(-100 * lower_bound(counts, 0.025, 0.0))
    assert rows[1]["parameters"] <= 0.5 * rows[0]["parameters"]
    assert rows[1]["options"] == {
        "until": "params=0.5x", "round_to": 2, "epochs": 0, "augment": "none"
    }  # fmt: skip
    assert rows[2]["options"] == {"calib_images": 20}


def test_times_are_of_one_target(cooked: Cooked) -> None:
    """Files of the first target that runs here are timed in turn; others are not compared."""
    start, prune, export, other = (row["timing"] for row in table(cooked.out))

    assert start["ms"] > 0
    assert start["against_start"] is start["against_before"] is None
    assert prune["against_before"] == prune["against_start"]
    for found in (prune["against_start"], export["against_before"], export["against_start"]):
        assert 0 < found["low"] <= found["value"] <= found["high"]
    assert other is None


def test_the_gate_and_the_provenance(edgecls: Command, root: Path, cooked: Cooked) -> None:
    """The verdict is that of `edgecls drift`; the bundles know their stages, and are whole."""
    bundle = cooked.out / "bundles" / "raspberry-pi"
    rows = table(cooked.out)

    done = edgecls("drift", bundle, "--reference", root / "run", "--data", root / "judge",
                   "--max-drop", 30, "--json")  # fmt: skip
    checked = edgecls("verify", bundle)
    shown = edgecls("inspect", bundle)

    kept = json.loads((cooked.out / "drift" / "raspberry-pi.json").read_text())
    assert json.loads(done.out)["verdict"] == kept["verdict"]
    assert done.code == cooked.code == 0
    assert checked.code == 0, checked.err
    for place, target in ((2, "raspberry-pi"), (3, "desktop-cpu")):
        recipe = json.loads((cooked.out / "bundles" / target / "manifest.json").read_text())
        assert recipe["recipe"] == {"steps": [*rows[:2], rows[place]], "verdict": "passed"}
        assert Bundle(cooked.out / "bundles" / target).manifest.model.source == "prune"
    assert re.search(r"recipe +start, prune [+-]\d+\.\d\d points, export .* passed", shown.out)
    assert (cooked.out / "recipe.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_done_is_not_done_again(
    edgecls: Command, copied: Cooked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same call in a copied folder runs no stage, and changes no byte of what it left."""
    forbid(monkeypatch, "prune", "export", "drift", "measure", "time_all")
    before = {file: file.read_bytes() for file in copied.out.rglob("*") if file.is_file()}

    done = edgecls("recipe", "-c", copied.file, "-o", copied.out, "--json")

    assert done.code == 0, done.err
    assert json.loads(done.out)["steps"] == table(copied.out)
    after = {file: file.read_bytes() for file in copied.out.rglob("*") if file.is_file()}
    assert {name for name in after if name.suffix != ".png"} == {
        name for name in before if name.suffix != ".png"
    }
    assert all(after[name] == data for name, data in before.items() if name.suffix != ".png")


def forbid(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    def called(*args: object, **options: object) -> None:
        raise AssertionError("it was done again")

    for name in names:
        place = stages_module if name in {"prune", "distill"} else run_module
        monkeypatch.setattr(place, name, called)


def test_another_budget_judges_again_only(
    edgecls: Command, copied: Cooked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new verdict is in the bundle too; a budget that is missed is exit 1."""
    forbid(monkeypatch, "prune", "export", "measure", "time_all")
    text = copied.file.read_text().replace("max-drop = 30", "max-drop = 0.1")
    copied.file.write_text(text + "\n")

    plan = edgecls("recipe", "-c", copied.file, "-o", copied.out, "--dry-run")
    done = edgecls("recipe", "-c", copied.file, "-o", copied.out)

    assert plan.code == 0, plan.err
    assert re.findall(r"^(\w+): (.*)$", plan.out, re.M) == [
        ("prune", "done"), ("export", "done"), ("drift", "to do")
    ]  # fmt: skip
    outcome = json.loads((copied.out / "drift" / "raspberry-pi.json").read_text())["verdict"]
    manifest = Bundle(copied.out / "bundles" / "raspberry-pi").manifest
    assert outcome["outcome"] in {"failed", "undecided"}
    assert manifest.recipe is not None
    assert manifest.recipe.verdict == outcome["outcome"]
    assert done.code == {"failed": 1, "undecided": 5}[outcome["outcome"]]
    assert f"raspberry-pi: {outcome['outcome']}" in done.out


@pytest.mark.slow
def test_another_export_leaves_the_stages(
    edgecls: Command, copied: Cooked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What depends on the change is made again, and the rows of the stages stay."""
    forbid(monkeypatch, "prune")
    before = table(copied.out)
    text = copied.file.read_text().replace("calib-images = 20", "calib-images = 30")
    copied.file.write_text(text)

    done = edgecls("recipe", "-c", copied.file, "-o", copied.out)

    rows = table(copied.out)
    assert done.code == 0, done.err
    assert "prune: done already" in done.err
    assert "bundles: done already" not in done.err
    for row, was in zip(rows[:2], before[:2], strict=True):
        assert {**row, "timing": None} == {**was, "timing": None}
    assert rows[2]["options"] == {"calib_images": 30}
    manifest = Bundle(copied.out / "bundles" / "raspberry-pi").manifest
    assert manifest.calibration is not None
    assert manifest.calibration.images == 30


@pytest.mark.slow
def test_what_was_tampered_with_is_made_again(edgecls: Command, copied: Cooked) -> None:
    """A folder that is not what the stage left is not taken for it."""
    weights = copied.out / "prune" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-4] + b"\0\0\0\x40")

    done = edgecls("recipe", "-c", copied.file, "-o", copied.out)

    assert done.code == 0, done.err
    assert weights.read_bytes() == whole


@pytest.mark.slow
def test_a_goal_that_is_missed(
    edgecls: Command, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 1 with the best kept; the same call says so at once, another goal begins anew."""
    file, out = tmp_path / "edgecls.toml", tmp_path / "out"
    text = FILE.format(root=root).split("[export]")[0]
    file.write_text(text.replace("params=0.5x", "params=0.001x"))

    missed = edgecls("recipe", "-c", file, "-o", out)
    with monkeypatch.context() as patched:
        patched.delattr(prune_module, "shipping")  # nothing is exported or pruned without it
        again = edgecls("recipe", "-c", file, "-o", out)
    file.write_text(text)
    done = edgecls("recipe", "-c", file, "-o", out)

    assert (missed.code, "is not reached: found" in missed.err) == (1, True)
    assert "prune.failing; change [prune]" in missed.err.replace("\n", " ")
    assert (again.code, "is not reached: found" in again.err) == (1, True)
    assert done.code == 0, done.err
    assert not (out / "prune.failing").exists()
    assert [row["stage"] for row in table(out)] == ["start", "prune"]


def test_a_dry_run(edgecls: Command, root: Path, tmp_path: Path) -> None:
    file = tmp_path / "edgecls.toml"
    text = FILE.format(root=root)
    file.write_text(text + '[distill]\nepochs = 2\nlr = 0.01\naugment = "shift"\n')

    done = edgecls("recipe", "-c", file, "-o", tmp_path / "out", "--dry-run", "--json")

    assert done.code == 0, done.err
    assert not (tmp_path / "out").exists()
    found = json.loads(done.out)
    assert [stage["stage"] for stage in found] == ["prune", "distill", "export", "drift"]
    assert {stage["status"] for stage in found} == {"to do"}
    assert [stage["begins_with"] for stage in found] == [
        str(root / "run"),
        *(str(tmp_path / "out" / name) for name in ("prune", "distill", "bundles")),
    ]  # fmt: skip
    assert found[1]["given"] == {"epochs": 2, "learning_rate": 0.01, "augment": "shift"}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("round-to = 2", "round-too = 2", "[prune] has no 'round-too'"),
        ("round-to = 2", "round-to = 0", "[prune]: Invalid value for '--round-to': 0"),
        ("round-to = 2", 'model = "lenet5"', "[prune] model: in a recipe that is given by"),
        ("epochs = 0\n", "", "[prune]: Missing option '--epochs'"),
        ("calib-images = 20", 'target = "jetson"', "[export] target: in a recipe that is given by"),
        ("calib-images = 20", 'precision = "fp32"\ncalib-table = "{root}/run/train.json"',
         "--calib-table is for calibrated precisions"),
        ("max-drop = 30", "max-drop = 30\nexplain = true", "[drift] explain: in a recipe"),
        ("max-drop = 30", "max-drop = 130", "max-drop"),
        ("[export]\ncalib = \"{root}/train\"\ncalib-images = 20\n", "", "give both tables"),
        ("judge = \"{root}/judge\"", "judge = \"{root}/val\"", "give --judge other images"),
        ("calib = \"{root}/train\"", "calib = \"{root}/judge\"", "[export] made with it"),
        ("judge = \"{root}/judge\"", "judge = \"{root}/train/1_digit 1\"", "[prune] made with it"),
        ('until = "params=0.5x"', 'until = "speed=2"', "--until speed=2: expected params, macs"),
        ('until = "params=0.5x"', "", "--method structured needs --until GOAL"),
        ('until = "params=0.5x"', 'until = "latency=0.5x"\nmethod = "global"',
         "--until latency=0.5x with --method global"),
        ("[export]", '[distill]\nepochs = 1\nmixup = 0.2\n[export]', "--mixup and --cutmix mix"),
        ("[export]", '[qat]\nepochs = 1\nfreeze = "backbone"\n[export]', "--freeze names layers"),
        ("[prune]", "[pruning]", "no command reads [pruning]"),
        ("model = \"{root}/run\"\n", "", "Missing argument 'MODEL'"),
    ],
)  # fmt: skip
def test_refusals(
    edgecls: Command, root: Path, tmp_path: Path, old: str, new: str, said: str
) -> None:
    """Before anything is begun, as the stage's own command would say it."""
    assert old in FILE
    file = tmp_path / "edgecls.toml"
    file.write_text(FILE.replace(old, new).format(root=root))

    done = edgecls("recipe", "-c", file, "-o", tmp_path / "out")

    assert done.code == 2
    assert said in done.err
    assert not (tmp_path / "out").exists()


def test_refusals_of_the_folder(edgecls: Command, root: Path, tmp_path: Path) -> None:
    file = tmp_path / "edgecls.toml"
    file.write_text(FILE.format(root=root))

    foreign = edgecls("recipe", "-c", file, "-o", root)
    without = edgecls("recipe", root / "run", "--judge", root / "judge", "--target", "jetson",
                      "-o", tmp_path / "out")  # fmt: skip
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "state.json").write_text("{")
    damaged = edgecls("recipe", "-c", file, "-o", tmp_path / "out")

    assert (foreign.code, "is no recipe's" in foreign.err) == (2, True)
    assert (without.code, "give -c edgecls.toml" in without.err) == (2, True)
    assert (damaged.code, "not a readable state" in damaged.err) == (4, True)


@pytest.mark.slow
def test_what_qat_trained_is_what_ships(edgecls: Command, root: Path, tmp_path: Path) -> None:
    """Its row is of the int8 file with its own scales; export needs no images, and adds nothing."""
    file, out = tmp_path / "edgecls.toml", tmp_path / "out"
    text = FILE.format(root=root).split("[export]")[0].replace(', "desktop-cpu"', "")
    file.write_text(text + '[qat]\nepochs = 1\naugment = "none"\n[export]\n')

    done = edgecls("recipe", "-c", file, "-o", out)

    rows = table(out)
    assert done.code == 0, done.err
    assert [(row["stage"], row["precision"]) for row in rows] == [
        ("start", "fp32"), ("prune", "fp32"), ("qat", "int8"), ("export", "int8")
    ]  # fmt: skip
    ships, trained = (
        (out / place / "raspberry-pi" / "model.int8.tflite").read_bytes()
        for place in ("bundles", "files/qat")
    )
    assert ships == trained
    assert rows[3]["points"]["value"] == 0
    assert rows[2]["size_bytes"] == len(ships) < 0.5 * rows[1]["size_bytes"]


@pytest.mark.slow
def test_a_kill_anywhere_changes_nothing(edgecls: Command, root: Path, tmp_path: Path) -> None:
    """SIGKILL in each stage; the same call goes on, to the same files and the same answers."""
    file, whole, cut = tmp_path / "edgecls.toml", tmp_path / "whole", tmp_path / "cut"
    text = FILE.format(root=root).replace("epochs = 0", "epochs = 2")
    file.write_text(text + '[distill]\nepochs = 2\nlr = 0.01\naugment = "none"\n')
    edgecls("recipe", "-c", file, "-o", whole)
    command = [sys.executable, "-m", "edgecls", "recipe", "-c", str(file), "-o", str(cut)]
    marks = (
        cut / "files/start/raspberry-pi", cut / "prune.work/step-1/last.ckpt", cut / "prune",
        cut / "distill/last.ckpt", cut / "files/distill.answers.json", cut / "bundles/raspberry-pi",
        cut / "drift/raspberry-pi.json",
    )  # fmt: skip

    for mark in marks:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while not mark.exists() and process.poll() is None:
            time.sleep(0.005)
        assert process.poll() is None, mark
        process.kill()
        assert process.wait() == -signal.SIGKILL
    done = edgecls("recipe", "-c", file, "-o", cut)

    assert done.code == 0, done.err
    for name in (
        "prune/model.safetensors", "distill/model.safetensors", "files/distill.answers.json",
        "bundles/raspberry-pi/model.int8.tflite", "bundles/desktop-cpu/model.int8.onnx",
    ):  # fmt: skip
        assert (cut / name).read_bytes() == (whole / name).read_bytes(), name
    assert [{**row, "timing": None} for row in table(cut)] == [
        {**row, "timing": None} for row in table(whole)
    ]
    # What a kill leaves of a file that was being written begins with a dot.
    left = {file.name for file in cut.iterdir() if not file.name.startswith(".")}
    assert left == {file.name for file in whole.iterdir()}


@pytest.mark.slow
def test_resnet_to_bundles(edgecls: Command, edgecls_data: Path, tmp_path: Path) -> None:
    """CIFAR ResNet-20, half of its MACs pruned, taught by itself, for every target."""
    script = edgecls_data / "cifar10" / "unpack.py"
    for part in ("dev_train5000", "dev_test1000"):
        subprocess.run([sys.executable, script, part, tmp_path / part], check=True)
        for place, image in enumerate(sorted((tmp_path / part).rglob("*.png"))):
            if place % 5:
                image.unlink()
    weights = edgecls_data / "weights" / "resnet20-12fca82f.th"
    file = tmp_path / "edgecls.toml"
    file.write_text(f"""
[recipe]
model = "cifar_resnet20"
weights = "{weights}"
data = "dev_train5000"
judge = "dev_test1000"
target = ["raspberry-pi", "jetson", "desktop-gpu", "desktop-cpu"]
threads = 2
[prune]
until = "macs=0.6x"
epochs = 1
[distill]
epochs = 1
lr = 0.01
[export]
calib = "dev_train5000"
calib-images = 32
[drift]
max-drop = 5
""")

    done = edgecls("recipe", "-c", file, "-o", tmp_path / "out")

    assert done.code in {0, 1, 5}, done.err
    rows = {(row["stage"], row["target"]): row for row in table(tmp_path / "out")}
    assert len(rows) == 3 + 4
    start, pruned = rows["start", "raspberry-pi"], rows["prune", "raspberry-pi"]
    assert start["top1"]["value"] > 85
    assert pruned["points"]["value"] < 0
    # An int8 file is near the network that it was made of, on every target.
    for target in ("raspberry-pi", "jetson", "desktop-gpu", "desktop-cpu"):
        shipped = rows["export", target]
        assert shipped["points"]["high"] > -3
        assert shipped["size_bytes"] < 0.5 * start["size_bytes"]
    assert rows["export", "raspberry-pi"]["timing"]["against_start"]["value"] > 1
