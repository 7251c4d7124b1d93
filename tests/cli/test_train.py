"""`edgecls train` and `edgecls models`: what they write, say and refuse."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgecls.core.errors import MissingPackageError, UsageError
from edgecls.core.preprocess import PRESETS
from edgecls.core.progress import Quiet
from edgecls.data.augment import Augment
from edgecls.data.mnist import mnist_5k
from edgecls.models import load_model
from edgecls.models.lenet import LeNet5
from edgecls.training import Epoch, Settings
from edgecls.training.distributed import Group
from edgecls.training.tensorboard import TensorBoard
from edgecls.workflows.sources import Live, ModelOptions, is_model, open_source
from edgecls.workflows.train import TrainOptions, prepare
from edgecls.workflows.training_data import DataChoice

from .learned import NAMES, write_digits

Command = Callable[..., Any]


@pytest.fixture(scope="module")
def digits_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """500 digits to learn from, 200 to judge by, each as a folder per class."""
    root = tmp_path_factory.mktemp("digits")
    write_digits(root, train=slice(0, None, 10), val=slice(1, None, 25))
    return root


def arguments(data: Path, out: Path, **more: object) -> list[object]:
    options = {"data": data / "train", "val": data / "val", "epochs": 3, "augment": "none", **more}
    given = [part for name, value in options.items() for part in (f"--{name}", value)]
    return ["train", "lenet5", *given, "-o", out]


def metrics(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "metrics.csv").read_text().splitlines()))


def test_a_training_is_a_model(edgecls: Command, digits_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    done = edgecls(*arguments(digits_folder, out))

    assert done.code == 0, done.err
    assert sorted(file.name for file in out.iterdir()) == [
        "last.ckpt", "metrics.csv", "model.safetensors", "train.json",
    ]  # fmt: skip
    rows = metrics(out)
    best = max(float(row["val_top1"]) for row in rows)
    record = json.loads((out / "train.json").read_text())
    assert (record["best_top1"], record["epochs"]) == (best, 3)
    assert f"top-1 {best:.2f} %" in done.out
    assert best > 60
    loaded = load_model(str(out))
    assert loaded.labels == NAMES
    assert loaded.preprocess == PRESETS["mnist"]
    assert is_model(str(out))
    source = open_source(str(out), ModelOptions())
    assert isinstance(source, Live)
    assert source.labels is not None
    images, labels = mnist_5k()
    answers = source.logits(images[1::25][..., None]).argmax(1)
    assert 100 * np.mean(answers == labels[1::25]) == pytest.approx(best)
    checkpoint = load_model("lenet5", weights=out / "last.ckpt")
    assert not checkpoint.random_weights


def test_json_is_alone_on_stdout(edgecls: Command, digits_folder: Path, tmp_path: Path) -> None:
    done = edgecls(*arguments(digits_folder, tmp_path / "out", epochs=1), "--json")

    document = json.loads(done.out)
    assert [row["epoch"] for row in document["epochs"]] == [1]
    low, high = document["val_top1_interval"]
    assert low < document["best"]["val_top1"] < high


def test_dry_run_says_what_and_writes_nothing(
    edgecls: Command, digits_folder: Path, tmp_path: Path
) -> None:
    done = edgecls(*arguments(digits_folder, tmp_path / "out"), "--dry-run")

    assert done.code == 0, done.err
    assert "61,706, of which 61,706 learn; 0.4 M MACs" in done.out
    assert "3 epochs of 15 steps with 32 images; 20 images of each epoch" in done.out
    assert "one-cycle to 0.05, rising for 14 steps" in done.out
    assert not (tmp_path / "out").exists()


def test_memory_of_the_plan_is_near_what_autograd_keeps(
    edgecls: Command, digits_folder: Path, tmp_path: Path
) -> None:
    """By hand for LeNet: the images, what each layer gives, pooling's indices, and the weights."""
    done = edgecls(*arguments(digits_folder, tmp_path / "out"), "--dry-run", "--json")

    image = 784 + 2 * 4704 + 1176 + 1176 * 2 + 2 * 1600 + 400 + 400 * 2 + 120 + 84
    floats = 3 * 61_706 + 32 * image
    found = json.loads(done.out)["memory_bytes"] / 4
    assert found == pytest.approx(floats, rel=0.4)


def test_fine_tuning_with_a_new_head(edgecls: Command, digits_folder: Path, tmp_path: Path) -> None:
    """Weights for ten classes, images of three: the backbone stays as it is, bit for bit."""
    first, second = tmp_path / "ten", tmp_path / "three"
    edgecls(*arguments(digits_folder, first, epochs=1))
    three = tmp_path / "data"
    for part in ("train", "val"):
        for number in range(3):
            name = f"{number}_digit {number}"
            shutil.copytree(digits_folder / part / name, three / part / name)
    weights = first / "model.safetensors"

    done = edgecls(*arguments(three, second, weights=weights, freeze="backbone", epochs=1))

    assert done.code == 0, done.err
    assert "the head is new, with 3 classes (the file's has 10 classes)" in done.err
    before, after = (load_model(str(out)).module for out in (first, second))
    assert before is not None
    assert after is not None
    for name, value in before.state_dict().items():
        assert name.startswith("fc3") or torch.equal(value, after.state_dict()[name])
    assert after.state_dict()["fc3.weight"].shape == (3, 84)


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--epochs", "0"], 2, "epochs must lie in"),
        (["--lr", "1e30"], 1, "training diverged"),
        (["--batch", "1000"], 4, "do not fill a batch of 1000"),
        (["--freeze", "nothing"], 2, "none of the model's 10 parameters"),
        (["--val-share", "1.5"], 2, "must lie in 0..1"),
        (["--mixup", "-1"], 2, "mixup must lie in"),
        (["--preprocess", "cifar10"], 4, "takes 1 channel"),
        (["--device", "cuda"], 2, "0 GPU"),
    ],
)
def test_refusals(
    edgecls: Command, digits_folder: Path, tmp_path: Path, more: list[str], code: int, said: str
) -> None:
    if "cuda" in more and torch.cuda.is_available():
        pytest.skip("a GPU is here")

    done = edgecls(*arguments(digits_folder, tmp_path / "out"), *more)

    assert (done.code, said in done.err) == (code, True), done.err


def test_other_classes_to_judge_by(edgecls: Command, digits_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(digits_folder / "val" / "0_digit 0", tmp_path / "val" / "zero")
    shutil.copytree(digits_folder / "val" / "1_digit 1", tmp_path / "val" / "one")

    done = edgecls(*arguments(digits_folder, tmp_path / "out", val=tmp_path / "val"))

    assert done.code == 4, done.err


def test_a_file_that_is_gone_is_left_out_and_listed(
    edgecls: Command, digits_folder: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(digits_folder, data)
    (data / "train/3_digit 3/gone.png").symlink_to(tmp_path / "nowhere.png")

    done = edgecls(*arguments(data, tmp_path / "out", epochs=2, batch=501))

    assert done.code == 0, done.err
    said = " ".join(done.err.split())
    assert said.count("unreadable: 3_digit 3/gone.png: no such file or directory") == 1


def test_a_share_judges_by_content(edgecls: Command, digits_folder: Path, tmp_path: Path) -> None:
    """Without --val a tenth of each class; a copy of an image never stands on the other side."""
    data = tmp_path / "data"
    shutil.copytree(digits_folder / "train", data)
    for path in sorted(data.rglob("*.png")):
        shutil.copy(path, path.with_name(f"copy_{path.name}"))

    done = edgecls("train", "lenet5", "--data", data, "--epochs", 1, "--augment", "none", "--json",
                   "-o", tmp_path / "out")  # fmt: skip

    assert done.code == 0, done.err
    record = json.loads((tmp_path / "out" / "train.json").read_text())
    assert record["train"]["images"] + record["val"]["images"] == 1000
    assert record["val"]["images"] % 2 == 0
    assert 90 <= record["val"]["images"] <= 220


def test_a_data_set_brings_its_own_part_to_judge_by(
    edgecls: Command, digits_folder: Path, tmp_path: Path
) -> None:
    """The folder holds train/ and val/; labels of mixed images are probabilities."""
    done = edgecls("train", "lenet5", "--data", digits_folder, "--epochs", 1, "--augment", "strong",
                   "-o", tmp_path / "out")  # fmt: skip

    assert done.code == 0, done.err
    record = json.loads((tmp_path / "out" / "train.json").read_text())
    assert (record["train"]["images"], record["val"]["images"]) == (500, 200)
    assert record["config"]["augment"]["mixup"] > 0


def test_a_batch_that_processes_cannot_share(digits_folder: Path, tmp_path: Path) -> None:
    options = TrainOptions(
        model="lenet5", out=tmp_path, settings=Settings(epochs=1, batch=32),
        data=DataChoice(path=digits_folder, augment=Augment()),
    )  # fmt: skip

    with pytest.raises(UsageError, match="32 images cannot be shared evenly by 3 processes"):
        prepare(options, Group(world=3), Quiet())


def test_a_finished_graph_is_not_trained(digits_folder: Path, tmp_path: Path) -> None:
    program = tmp_path / "lenet.pt2"
    torch.export.save(torch.export.export(LeNet5().eval(), (torch.zeros(1, 1, 28, 28),)), program)
    options = TrainOptions(
        model=str(program), out=tmp_path, settings=Settings(epochs=1),
        data=DataChoice(path=digits_folder, augment=Augment()),
    )  # fmt: skip

    with pytest.raises(UsageError, match="finished graph"):
        prepare(options, Group(), Quiet())


def test_a_training_is_not_overwritten(
    edgecls: Command, digits_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    edgecls(*arguments(digits_folder, out, epochs=1))
    before = {file.name: file.read_bytes() for file in out.iterdir()}

    again = edgecls(*arguments(digits_folder, out, epochs=1))
    other = edgecls(*arguments(digits_folder, out, epochs=2), "--resume")
    architecture = edgecls(
        "train", "cifar_resnet20", *arguments(digits_folder, out, epochs=1)[2:], "--resume",
        "--preprocess", "cifar10",
    )  # fmt: skip
    same = edgecls(*arguments(digits_folder, out, epochs=1), "--resume")

    assert (again.code, "--resume" in again.err) == (2, True)
    assert (other.code, "epochs is 1 there, 2 here" in other.err) == (4, True)
    assert (architecture.code, "of another training" in architecture.err) == (4, True)
    assert same.code == 0
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


def test_other_weights_are_not_overwritten(
    edgecls: Command, digits_folder: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"mine")

    for more in ((), ("--resume",), ("--dry-run",)):
        done = edgecls(*arguments(digits_folder, tmp_path), *more)
        assert (done.code, "model.safetensors, which would be lost" in done.err) == (2, True)
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]
    assert weights.read_bytes() == b"mine"


def test_a_folder_that_cannot_be_written_is_refused_first(
    edgecls: Command, digits_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()

    done = edgecls(*arguments(digits_folder, tmp_path / "file" / "out"), "--dry-run")

    assert (done.code, "file is no folder that can be written to" in done.err) == (2, True)


def test_dry_run_of_a_resumption_says_what_the_resumption_would(
    edgecls: Command, digits_folder: Path, tmp_path: Path
) -> None:
    assert edgecls(*arguments(digits_folder, tmp_path, epochs=1)).code == 0

    for epochs, code in ((1, 0), (2, 4)):
        given = arguments(digits_folder, tmp_path, epochs=epochs)
        assert edgecls(*given, "--resume", "--dry-run").code == code


def test_a_resumption_mends_the_record(
    edgecls: Command, digits_folder: Path, tmp_path: Path
) -> None:
    given = arguments(digits_folder, tmp_path, epochs=1)
    assert edgecls(*given).code == 0
    record = (tmp_path / "train.json").read_text()
    stale = json.loads(record) | {"epochs": 0, "best_epoch": 0, "best_top1": None}
    (tmp_path / "train.json").write_text(json.dumps(stale))

    assert edgecls(*given, "--resume").code == 0
    assert (tmp_path / "train.json").read_text() == record


def test_judging_by_what_was_learned_is_said(
    edgecls: Command, digits_folder: Path, tmp_path: Path
) -> None:
    given = arguments(digits_folder, tmp_path, val=digits_folder / "train")

    for command, said in ((given, True), (arguments(digits_folder, tmp_path), False)):
        done = edgecls(*command, "--dry-run")
        assert (done.code, "says nothing of others" in done.err) == (0, said)


def test_one_class_cannot_be_learned(edgecls: Command, digits_folder: Path, tmp_path: Path) -> None:
    first = min((digits_folder / "train").iterdir())
    shutil.copytree(first, tmp_path / "data" / first.name)

    done = edgecls("train", "lenet5", "--data", tmp_path / "data", "--epochs", 1, "-o", tmp_path)

    assert (done.code, "two classes or more, found 50 of" in done.err) == (4, True)


def test_a_trained_folder_is_trained_on(
    edgecls: Command, digits_folder: Path, tmp_path: Path
) -> None:
    """From its weights, where the classes are its own."""
    edgecls(*arguments(digits_folder, tmp_path / "one", epochs=1))
    three = tmp_path / "data"
    for part in ("train", "val"):
        for number in range(3):
            name = f"{number}_digit {number}"
            shutil.copytree(digits_folder / part / name, three / part / name)

    def on(data: Path, out: str, *model: object) -> Any:
        return edgecls("train", *model, *arguments(data, tmp_path / out, epochs=1)[2:])

    done = on(digits_folder, "two", tmp_path / "one")
    same = on(digits_folder, "same", "lenet5", "--weights", tmp_path / "one" / "model.safetensors")
    other = on(three, "three", tmp_path / "one")

    assert (done.code, same.code) == (0, 0), done.err
    record = json.loads((tmp_path / "two" / "train.json").read_text())
    assert record["architecture"] == "lenet5"
    files = [(tmp_path / out / "model.safetensors").read_bytes() for out in ("two", "same")]
    assert files[0] == files[1]
    assert other.code == 2
    assert "knows other classes" in other.err
    assert "name its architecture (lenet5)" in other.err


def test_a_record_runs_no_code(edgecls: Command, digits_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    edgecls(*arguments(digits_folder, out, epochs=1))
    record = json.loads((out / "train.json").read_text())
    (out / "train.json").write_text(json.dumps({**record, "architecture": "os:abort"}))

    with pytest.raises(UsageError, match="not run on a file's word"):
        load_model(str(out))


def test_options_from_a_file(edgecls: Command, digits_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(digits_folder / "train", tmp_path / "images")
    (tmp_path / "edgecls.toml").write_text(
        '[train]\nmodel = "lenet5"\ndata = "images"\nepochs = 1\naugment = "none"\nout = "run"\n'
        "lr = 0.02\n"
    )

    done = edgecls("train", "-c", tmp_path / "edgecls.toml")

    assert done.code == 0, done.err
    assert (
        json.loads((tmp_path / "run" / "train.json").read_text())["config"]["learning_rate"] == 0.02
    )


def test_models_lists_and_measures(edgecls: Command) -> None:
    done = edgecls("models", "cifar_resnet20", "--json")
    missing = edgecls("models", "resnet5o")

    (entry,) = json.loads(done.out)
    assert entry["model"] == "cifar_resnet20"
    assert entry["parameters"] == 269_722
    assert (missing.code, "did you mean" in missing.err) == (4, True)


def test_tensorboard_is_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)

    with pytest.raises(MissingPackageError, match=r"edgecls\[train\]"):
        TensorBoard(tmp_path, 0)


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = TensorBoard(tmp_path, 0)
    for number, loss in enumerate((2.5, 1.5), start=1):
        board.write(
            Epoch(
                epoch=number, steps=10 * number, learning_rate=0.1, train_loss=loss, train_top1=5.0
            )
        )
    board.close()

    found = EventAccumulator(str(tmp_path))
    found.Reload()
    assert [(e.step, e.value) for e in found.Scalars("loss/train")] == [(10, 2.5), (20, 1.5)]
    assert "top1/val" not in found.Tags()["scalars"]


def in_process(*command: object) -> list[str]:
    return [sys.executable, *(str(part) for part in command)]


@pytest.mark.slow
def test_two_processes_learn_as_one(digits_folder: Path, tmp_path: Path) -> None:
    """The same global batches: losses and weights agree as far as float32 sums can."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    one, two = tmp_path / "one", tmp_path / "two"
    options = {"epochs": 2, "augment": "light", "clip-norm": 1.0, "ema": 0.9}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2]
    for start, out in (([], one), (torchrun, two)):
        done = subprocess.run(
            in_process(*start, "-m", "edgecls", *arguments(digits_folder, out, **options)),
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("epoch   2") == 1

    for ours, theirs in zip(metrics(one), metrics(two), strict=True):
        for name in ("train_loss", "val_loss"):
            assert float(ours[name]) == pytest.approx(float(theirs[name]), rel=1e-4)
        assert ours["steps"] == theirs["steps"]
    first, second = (load_model(str(out)).module for out in (one, two))
    assert first is not None
    assert second is not None
    for name, value in first.state_dict().items():
        assert torch.allclose(value, second.state_dict()[name], atol=1e-4), name


@pytest.mark.slow
def test_ctrl_c_saves_and_exits(digits_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = in_process("-u", "-m", "edgecls", *arguments(digits_folder, out, epochs=2000))
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        run.stdout.readline()
        run.send_signal(signal.SIGINT)
        _, err = run.communicate(timeout=60)

    assert run.returncode == 130
    assert "saved; the same command with --resume goes on" in err
    assert torch.load(out / "last.ckpt", weights_only=True)["epochs"] >= 1


@pytest.mark.slow
def test_a_training_becomes_a_bundle(edgecls: Command, digits_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    edgecls(*arguments(digits_folder, out, epochs=6))

    exported = edgecls("export", out, "--target", "raspberry-pi", "--calib",
                       digits_folder / "train", "-o", tmp_path / "bundles")  # fmt: skip
    judged = edgecls("drift", tmp_path / "bundles" / "raspberry-pi", "--reference", out, "--data",
                     digits_folder / "val", "--json")  # fmt: skip

    assert exported.code == 0, exported.err
    assert judged.code in {0, 5}, judged.err
    report = json.loads(judged.out)
    assert report["metrics"]["images"] == 200
