"""`edgecls distill`: what it writes, compares, keeps and refuses, and how it goes on."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from edgecls.core.preprocess import PRESETS
from edgecls.data.dataset import open_dataset
from edgecls.data.mnist import mnist_5k, write_image_folder
from edgecls.models import load_model
from edgecls.workflows import distill as module
from edgecls.workflows.compared import difference

from .learned import train_lenet, write_digits

Command = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def digits_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 digits to learn from, 200 to judge by; and a teacher that learned from 1,000."""
    root = tmp_path_factory.mktemp("digits")
    write_digits(root, train=slice(0, 4800, 16), many=slice(0, None, 5), val=slice(1, None, 25))
    train_lenet(root, "many", "teacher")
    return root


def arguments(data: Path, out: Path, *flags: object, **more: object) -> list[object]:
    options = {
        "data": data / "train", "val": data / "val", "teacher": data / "teacher", "epochs": 2,
        "augment": "none", "threads": 1, **more,
    }  # fmt: skip
    given = [
        part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)
    ]
    return ["distill", "lenet5", *given, *flags, "-o", out]


def test_a_student_beside_its_control(
    edgecls: Command, digits_folder: Path, tmp_path: Path
) -> None:
    """Both are models; the control is what `train` gives; the table counts what they answer."""
    out, plain = tmp_path / "out", tmp_path / "plain"

    done = edgecls(*arguments(digits_folder, out, "--control"))

    assert done.code == 0, done.err
    assert sorted(file.name for file in out.iterdir() if file.suffix != ".npy") == [
        "control", "distillation.json", "last.ckpt", "metrics.csv", "model.safetensors",
        "train.json",
    ]  # fmt: skip
    trained = edgecls(
        "train", "lenet5", "--data", digits_folder / "train", "--val", digits_folder / "val",
        "--epochs", 2, "--augment", "none", "--threads", 1, "-o", plain,
    )  # fmt: skip
    assert trained.code == 0
    for name in ("model.safetensors", "metrics.csv"):
        assert (out / "control" / name).read_bytes() == (plain / name).read_bytes()
    document = json.loads((out / "distillation.json").read_text())
    rows = {row["who"]: row for row in document["rows"]}
    assert list(rows) == ["teacher", "control", "distilled"]
    val = open_dataset(digits_folder / "val")
    right = {}
    for who, folder in (
        ("teacher", digits_folder / "teacher"), ("control", plain), ("distilled", out)
    ):  # fmt: skip
        loaded = load_model(str(folder))
        assert loaded.module is not None
        read = np.stack([np.asarray(pixels_of(val, index)) for index in range(len(val))])
        with torch.inference_mode():
            answers = loaded.module(torch.from_numpy(PRESETS["mnist"].normalize(read)))
        right[who] = answers.argmax(1).numpy() == val.labels
        assert rows[who]["accuracy"]["top1"] == pytest.approx(100 * right[who].mean())
    for who in ("teacher", "control"):
        gained = int((right["distilled"] & ~right[who]).sum())
        lost = int((right[who] & ~right["distilled"]).sum())
        behind = rows[who]["behind"]
        assert (behind["gained"], behind["lost"]) == (gained, lost)
        assert behind["low"] <= behind["points"] == 100 * (gained - lost) / 200 <= behind["high"]
    config = json.loads((out / "train.json").read_text())["config"]["distillation"]
    assert (config["temperature"], config["alpha"]) == (4.0, 0.9)
    assert "control" in done.out
    assert "points" in done.out


def pixels_of(dataset: Any, index: int) -> Any:
    from edgecls.runtimes.preprocess import to_pixels

    return to_pixels(dataset.source(index), PRESETS["mnist"])


def test_answers_are_kept_and_found_again(
    edgecls: Command, digits_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept is what the teacher answers; a second student does not ask it."""
    kept = tmp_path / "kept"
    options = arguments(digits_folder, tmp_path / "one", teacher_cache=kept, epochs=1)
    assert edgecls(*options).code == 0
    (file,) = kept.iterdir()
    answers = np.load(file)
    train = open_dataset(digits_folder / "train")
    teacher = load_model(str(digits_folder / "teacher")).module
    assert teacher is not None
    first = PRESETS["mnist"].normalize(pixels_of(train, 0)[None])
    with torch.inference_mode():
        expected = teacher(torch.from_numpy(first)).numpy()[0]
    before = file.stat().st_mtime_ns

    again = edgecls(*arguments(digits_folder, tmp_path / "two", teacher_cache=kept, epochs=1))

    assert again.code == 0, again.err
    assert answers.shape == (300, 10)
    np.testing.assert_allclose(answers[0], expected, rtol=1e-4, atol=1e-4)
    assert [entry.name for entry in kept.iterdir()] == [file.name]
    assert file.stat().st_mtime_ns == before
    same = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert same[0] == same[1]
    file.write_bytes(file.read_bytes()[:1000])
    damaged = edgecls(*arguments(digits_folder, tmp_path / "three", teacher_cache=kept, epochs=1))
    assert damaged.code == 4
    assert "delete it" in damaged.err


def test_kept_and_live_answers_teach_the_same(
    edgecls: Command, digits_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without augmentation it is the same loss but for how the teacher's batches are summed."""
    assert edgecls(*arguments(digits_folder, tmp_path / "kept", epochs=1)).code == 0
    monkeypatch.setattr(module._Classroom, "keeps", property(lambda self: False))
    assert edgecls(*arguments(digits_folder, tmp_path / "live", epochs=1)).code == 0

    weights = [load_model(str(tmp_path / name)).module for name in ("kept", "live")]

    assert not list((tmp_path / "live").glob("*.npy"))
    assert weights[0] is not None
    assert weights[1] is not None
    for one, other in zip(weights[0].parameters(), weights[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_with_augmentation_the_teacher_sees_what_the_student_sees(
    edgecls: Command, digits_folder: Path, tmp_path: Path
) -> None:
    """Or the plain images, which is said; nothing augmented is ever kept."""
    live = edgecls(*arguments(digits_folder, tmp_path / "live", augment="shift", epochs=1))
    plain = edgecls(
        *arguments(digits_folder, tmp_path / "plain", augment="shift", epochs=1,
                   teacher_sees="plain")
    )  # fmt: skip

    assert (live.code, plain.code) == (0, 0), live.err + plain.err
    assert not list((tmp_path / "live").glob("*.npy"))
    assert len(list((tmp_path / "plain").glob("*.npy"))) == 1
    assert "without augmentation" in plain.err
    assert "without augmentation" not in live.err
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("live", "plain")]
    assert weights[0] != weights[1]


def test_a_graph_teaches_and_probabilities_are_undone(
    edgecls: Command, digits_folder: Path, tmp_path: Path
) -> None:
    """A linear ONNX teacher with a softmax: its answers are logits up to a constant."""
    random = np.random.default_rng(0)
    weight = random.normal(size=(784, 10)).astype(np.float32) / 28
    nodes = [
        onnx.helper.make_node("Flatten", ["x"], ["flat"]),
        onnx.helper.make_node("MatMul", ["flat", "w"], ["z"]),
        onnx.helper.make_node("Softmax", ["z"], ["p"], axis=1),
    ]
    graph = onnx.helper.make_graph(
        nodes, "teacher",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 1, 28, 28])],
        [onnx.helper.make_tensor_value_info("p", onnx.TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, tmp_path / "teacher.onnx")

    done = edgecls(
        *arguments(digits_folder, tmp_path / "out", teacher=tmp_path / "teacher.onnx", epochs=1)
    )

    assert done.code == 0, done.err
    assert "gets the student's" in done.err
    (file,) = (tmp_path / "out").glob("teacher-*.npy")
    train = open_dataset(digits_folder / "train")
    inputs = PRESETS["mnist"].normalize(
        np.stack([pixels_of(train, index) for index in range(len(train))])
    )
    expected = inputs.reshape(len(inputs), -1) @ weight
    found = np.load(file)
    np.testing.assert_allclose(
        found - found.mean(1, keepdims=True), expected - expected.mean(1, keepdims=True), atol=2e-3
    )


@pytest.mark.slow
def test_it_goes_on_after_a_kill(edgecls: Command, digits_folder: Path, tmp_path: Path) -> None:
    """In the student's training and in the control's: the same weights, bit for bit."""
    whole = tmp_path / "whole"
    assert edgecls(*arguments(digits_folder, whole, "--control", epochs=3)).code == 0
    for who in ("distilled", "control"):
        out = tmp_path / who
        command = [str(part) for part in arguments(digits_folder, out, "--control", epochs=3)]
        killed = subprocess.run(
            [sys.executable, "-c", _KILLED, who, *command], check=False, capture_output=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert killed.returncode == -9, killed.stderr

        done = edgecls(*command, "--resume")

        assert done.code == 0, done.err
        for part in ("model.safetensors", "control/model.safetensors", "distillation.json",
                     "control/metrics.csv"):  # fmt: skip
            assert (out / part).read_bytes() == (whole / part).read_bytes(), part


_KILLED = """
import os, signal, sys
from edgecls.cli import distill
from edgecls.cli.main import main

def kill(who, epoch):
    if who == sys.argv[1] and epoch.epoch == 2:
        os.kill(os.getpid(), signal.SIGKILL)

distill._show_epoch = kill
main(sys.argv[2:])
"""


def test_another_lesson_is_not_gone_on_with(
    edgecls: Command, digits_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert edgecls(*arguments(digits_folder, out, epochs=1)).code == 0

    again = edgecls(*arguments(digits_folder, out, epochs=1))
    other = edgecls(*arguments(digits_folder, out, "--resume", epochs=1, temperature=2.0))
    seen = edgecls(*arguments(digits_folder, out, "--resume", "--dry-run", epochs=1, alpha=0.5))

    assert (again.code, other.code, seen.code) == (2, 4, 4)
    assert "temperature" in other.err
    assert "alpha" in seen.err


def test_a_loss_that_is_not_finite_ends_it(
    edgecls: Command, digits_folder: Path, tmp_path: Path
) -> None:
    done = edgecls(*arguments(digits_folder, tmp_path / "out", lr=1e20))

    assert done.code == 1
    assert "training diverged" in done.err


@pytest.mark.slow
def test_hints_and_a_pruned_student(edgecls: Command, digits_folder: Path, tmp_path: Path) -> None:
    """A folder of `prune` learns from the unpruned, looking where it looks, and stays as narrow."""
    pruned = edgecls(
        "prune", digits_folder / "teacher", "--data", digits_folder / "train", "--val",
        digits_folder / "val", "--until", "params=0.5x", "--epochs", 0, "--round-to", 2,
        "--precision", "fp32", "--threads", 1, "-o", tmp_path / "small",
    )  # fmt: skip
    assert pruned.code == 0, pruned.err
    given = arguments(digits_folder, tmp_path / "out", "--json", hint="conv2", lr=0.01)
    given[1] = tmp_path / "small"

    done = edgecls(*given)

    assert done.code == 0, done.err
    rows = json.loads(done.out)["rows"]
    assert [row["who"] for row in rows] == ["teacher", "student before", "distilled"]
    assert rows[0]["parameters"] == 61_706
    assert rows[1]["parameters"] == rows[2]["parameters"] < 31_000
    assert rows[1]["behind"]["points"] > 0
    assert load_model(str(tmp_path / "out")).pruned is not None


def test_dry_run_says_what_and_writes_nothing(
    edgecls: Command, digits_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"

    kept = edgecls(*arguments(digits_folder, out, "--dry-run", "--control"))
    live = edgecls(*arguments(digits_folder, out, "--dry-run", "--json", augment="shift"))

    assert (kept.code, live.code) == (0, 0), kept.err + live.err
    assert "300 images, once, and kept" in kept.out
    assert "twice" in kept.out
    found = json.loads(live.out)
    assert (found["asked"], found["kept"]) == (2 * 9 * 32, False)
    assert not out.exists()


@pytest.mark.parametrize(
    ("flags", "more", "code", "text"),
    [
        ((), {"teacher": "lenet5"}, 2, "--teacher-weights"),
        ((), {"teacher": "no_such_net"}, 4, "no model"),
        ((), {"temperature": 0}, 2, "temperature must lie"),
        ((), {"alpha": 0}, 2, "edgecls train"),
        ((), {"mixup": 0.2}, 2, "--mixup"),
        ((), {"hint": "nothing"}, 2, "no layer 'nothing'"),
        ((), {"hint": "conv2", "teacher_sees": "plain"}, 2, "--teacher-sees same"),
        ((), {"augment": "shift", "teacher_preprocess": "WIDER"}, 2, "--teacher-sees plain"),
    ],
)
def test_refusals(
    edgecls: Command, digits_folder: Path, tmp_path: Path, flags: tuple[str, ...],
    more: dict[str, Any], code: int, text: str,
) -> None:  # fmt: skip
    if more.get("teacher_preprocess") == "WIDER":
        file = tmp_path / "wider.toml"
        file.write_text(
            '[preprocess]\ncolor = "gray"\nresize = 32\ncrop = 28\nmean = [0.5]\nstd = [0.5]\n'
        )
        more = {**more, "teacher_preprocess": file}

    done = edgecls(*arguments(digits_folder, tmp_path / "out", *flags, **more))

    assert done.code == code, done.err
    assert text in done.err
    assert not (tmp_path / "out").exists()


def test_other_classes_are_refused(edgecls: Command, digits_folder: Path, tmp_path: Path) -> None:
    images, labels = mnist_5k()
    names = (*tuple(f"digit {number}" for number in range(9)), "letter")
    write_image_folder(images[::16][:300], labels[::16][:300], tmp_path / "other", names)

    given = arguments(digits_folder, tmp_path / "out")
    given[given.index("--data") + 1] = tmp_path / "other"
    del given[given.index("--val") : given.index("--val") + 2]

    done = edgecls(*given)

    assert done.code == 4
    assert "classes" in done.err


def test_a_difference_is_about_images_that_both_answered() -> None:
    one = np.asarray([1, 1, 1, 0, -1, 1] * 20, np.int8)
    other = np.asarray([1, 0, 0, 1, 1, -1] * 20, np.int8)

    found = difference(one, other)
    back = difference(other, one)

    assert (found.gained, found.lost) == (40, 20)
    assert found.points == pytest.approx(100 * 20 / 80)
    assert found.low < found.points < found.high
    assert (back.points, back.low, back.high) == pytest.approx(
        (-found.points, -found.high, -found.low), abs=1e-3
    )
    assert (found.low > 0) == (found.p < 0.05)


def test_options_from_a_file(edgecls: Command, digits_folder: Path, tmp_path: Path) -> None:
    """The teacher's folder stands beside the file, from wherever it is run."""
    (tmp_path / "data").symlink_to(digits_folder)
    (tmp_path / "edgecls.toml").write_text(
        '[distill]\nmodel = "lenet5"\ndata = "data/train"\nval = "data/val"\n'
        'teacher = "data/teacher"\naugment = "none"\nepochs = 1\nalpha = 0.5\nout = "out"\n'
    )

    done = edgecls("distill", "-c", tmp_path / "edgecls.toml", "--threads", 1)

    assert done.code == 0, done.err
    record = json.loads((tmp_path / "out" / "train.json").read_text())
    assert record["config"]["distillation"]["alpha"] == 0.5


@pytest.mark.slow
def test_two_processes_learn_as_one(digits_folder: Path, tmp_path: Path) -> None:
    """A live teacher with hints, and kept answers: the same losses as one process."""
    for kind, more in (("live", {"augment": "shift", "hint": "conv2"}), ("kept", {})):
        found = []
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        for name, start in (("one", []), ("two", torchrun)):
            out = tmp_path / f"{kind}-{name}"
            given = [str(part) for part in arguments(digits_folder, out, "--control", **more)]
            done = subprocess.run(
                [sys.executable, *start, "-m", "edgecls", *given], check=False,
                env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            assert done.stdout.count("distilled  epoch   2") == 1
            found.append([*rows_of(out / "metrics.csv"), *rows_of(out / "control/metrics.csv")])
        for ours, theirs in zip(*found, strict=True):
            assert float(ours["train_loss"]) == pytest.approx(float(theirs["train_loss"]), rel=1e-3)
            assert float(ours["val_loss"]) == pytest.approx(float(theirs["val_loss"]), rel=1e-3)


def rows_of(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.read_text().splitlines()))


@pytest.mark.nightly
def test_a_published_teacher_of_another_size(
    edgecls: Command, edgecls_data: Path, tmp_path: Path
) -> None:
    """ResNet-56 teaches a ResNet-20 that looks where it looks; each has its published accuracy."""
    unpack = edgecls_data / "cifar10" / "unpack.py"
    subprocess.run(
        [sys.executable, unpack, "dev_test1000", tmp_path / "images"], check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    weights = edgecls_data / "weights"

    done = edgecls(
        "distill", "cifar_resnet20", "--weights", weights / "resnet20-12fca82f.th", "--teacher",
        "cifar_resnet56", "--teacher-weights", weights / "resnet56-4bfd9763.th", "--data",
        tmp_path / "images", "--val-share", 0.6, "--epochs", 1, "--lr", 0.001, "--hint", "layer2",
        "--hint", "layer3", "--threads", 2, "--json", "-o", tmp_path / "out",
    )  # fmt: skip

    assert done.code == 0, done.err
    rows = {row["who"]: row["accuracy"] for row in json.loads(done.out)["rows"]}
    # The authors of the weights give 93.39 % and 91.73 % of all 10,000 test images.
    assert rows["teacher"]["low"] < 93.39 < rows["teacher"]["high"]
    assert rows["student before"]["low"] < 91.73 < rows["student before"]["high"]
    assert rows["distilled"]["top1"] > 88
