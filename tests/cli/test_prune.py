"""`edgecls prune`: what it writes, says, refuses, and how it goes on after a kill."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edgecls.models import load_model
from edgecls.training import save_weights
from edgecls.workflows import prune as prune_module
from edgecls.workflows import prune_plan
from edgecls.workflows.speed import Ratio

from .learned import train_lenet, write_digits

Command = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def digits_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """500 digits to learn from, 200 to judge by; and LeNet's weights, learned from all 5,000."""
    root = tmp_path_factory.mktemp("digits")
    write_digits(root, train=slice(0, None, 10), val=slice(1, None, 25))
    train_lenet(root, "train", "run")
    return root


def arguments(data: Path, out: Path, **more: object) -> list[object]:
    options = {
        "data": data / "train", "val": data / "val", "epochs": 1, "augment": "none", "threads": 1,
        "round-to": 2, "until": "params=0.5x", "precision": "fp32", **more,
    }  # fmt: skip
    given = [part for name, value in options.items() for part in (f"--{name}", value)]
    return ["prune", data / "run", *given, "-o", out]


def steps(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "steps.csv").read_text().splitlines()))


def test_a_pruning_is_a_smaller_model(
    edgecls: Command, digits_folder: Path, tmp_path: Path
) -> None:
    """Loaded, judged, exported, trained on and pruned again, as its folder says."""
    out = tmp_path / "out"

    done = edgecls(*arguments(digits_folder, out, steps=2))

    assert done.code == 0, done.err
    assert sorted(file.name for file in out.iterdir()) == [
        "metrics.csv", "model.safetensors", "pruning.png", "state.json", "steps.csv", "train.json",
    ]  # fmt: skip
    assert [file.name for file in tmp_path.iterdir()] == ["out"]
    before, half, after = (int(row["parameters"]) for row in steps(out))
    assert before == 61_706 > half > after
    assert after <= 0.5 * 61_706
    last = steps(out)[-1]
    assert float(last["predicted_speedup"]) > 1
    assert float(last["speedup_low"]) <= float(last["speedup"]) <= float(last["speedup_high"])
    epochs = list(csv.DictReader((out / "metrics.csv").read_text().splitlines()))
    assert [row["step"] for row in epochs] == ["1", "2"]
    loaded = load_model(str(out))
    assert loaded.module is not None
    assert sum(value.numel() for value in loaded.module.parameters()) == after
    assert (out / "model.safetensors").stat().st_size < 4 * after + 2000

    judged = edgecls("evaluate", out, "--data", digits_folder / "val", "--json")
    assert json.loads(judged.out)["top1"] == pytest.approx(float(last["top1"]))


@pytest.mark.slow
def test_a_pruned_model_is_trained_on_and_pruned_again(
    edgecls: Command, digits_folder: Path, tmp_path: Path
) -> None:
    out, on = tmp_path / "out", tmp_path / "on"
    edgecls(*arguments(digits_folder, out, epochs=0))
    after = int(steps(out)[-1]["parameters"])

    more = arguments(digits_folder, on)[2:]
    trained = edgecls("train", out, *more[: more.index("--round-to")], "-o", on)
    assert trained.code == 0, trained.err
    again = load_model(str(on))
    assert again.pruned is not None
    assert again.parameters == after

    third = tmp_path / "third"
    smaller = arguments(digits_folder, third, until="params=0.6x", epochs=0)
    assert edgecls("prune", out, *smaller[2:]).code == 0
    assert int(steps(third)[-1]["parameters"]) <= 0.6 * after
    assert load_model(str(third)).module is not None


@pytest.mark.slow
def test_the_same_seed_gives_the_same_model(
    edgecls: Command, digits_folder: Path, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        edgecls(*arguments(digits_folder, tmp_path / name, importance="taylor"))

    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert files[0] == files[1]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["global", "layer", "2:4"])
def test_zeros_are_counted_and_stay(
    edgecls: Command, digits_folder: Path, tmp_path: Path, method: str
) -> None:
    """Also where the model is trained on; nothing is said to be smaller that is not."""
    out, on = tmp_path / "out", tmp_path / "on"
    given = arguments(digits_folder, out, method=method)
    if method == "2:4":
        del given[given.index("--until") : given.index("--until") + 2]

    done = edgecls(*given)

    assert done.code == 0, done.err
    before, after = steps(out)
    assert after["parameters"] == before["parameters"] == "61706"
    assert after["macs"] == before["macs"]
    assert abs(int(after["size_bytes"]) - int(before["size_bytes"])) < 100
    assert int(after["nonzero"]) <= 0.53 * 61_706
    module = load_model(str(out)).module
    assert module is not None
    if method == "2:4":
        weight = module.get_parameter("fc2.weight").detach()
        assert int(weight.reshape(len(weight), -1, 4).ne(0).sum(2).max()) == 2
    plain = given[2 : given.index("--round-to")]
    assert edgecls("train", out, *plain, "-o", on).code == 0
    learned = load_model(str(on)).module
    assert learned is not None
    for name, value in module.named_parameters():
        if value.ndim > 1:
            now = learned.get_parameter(name)
            assert not bool(now[value == 0].any())
            assert not torch.equal(now, value)


@pytest.mark.slow
def test_soft_filters_end_narrow(edgecls: Command, digits_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    done = edgecls(*arguments(digits_folder, out, method="soft", epochs=2))

    assert done.code == 0, done.err
    assert int(steps(out)[-1]["parameters"]) <= 0.5 * 61_706
    assert float(steps(out)[-1]["top1"]) > 60


def test_dry_run_says_what_and_writes_nothing(
    edgecls: Command, digits_folder: Path, tmp_path: Path
) -> None:
    done = edgecls(*arguments(digits_folder, tmp_path / "out"), "--dry-run")
    as_json = edgecls(*arguments(digits_folder, tmp_path / "out"), "--dry-run", "--json")

    assert done.code == 0, done.err
    assert "61,706 parameters, 0.4 M MACs" in done.out
    decided = json.loads(as_json.out)["decided"]
    for name, width in decided["begin"].items():
        assert f"{name}: {width} -> {decided['end'][name]} channels" in done.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_goal_out_of_reach_is_kept_as_failing(
    edgecls: Command, digits_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"

    done = edgecls(*arguments(digits_folder, out, until="params=0.001x", epochs=0), "--json")
    again = edgecls(*arguments(digits_folder, out, until="params=0.001x", epochs=0))

    assert (done.code, again.code) == (1, 1), done.err
    document = json.loads(done.out)
    assert document["reached"] is False
    assert document["out"] == str(tmp_path / "out.failing")
    assert "cannot be reached" in done.err
    assert [file.name for file in tmp_path.iterdir()] == ["out.failing"]
    assert (
        load_model(str(tmp_path / "out.failing")).parameters == document["steps"][-1]["parameters"]
    )


@pytest.mark.slow
@pytest.mark.parametrize("reached", [True, False])
def test_latency_is_judged_by_what_is_measured(
    edgecls: Command, digits_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    reached: bool,
) -> None:  # fmt: skip
    """The search believes a clock; the verdict asks again, and its interval's end decides."""

    def planned(one: Any, other: Any, pixels: Any) -> Ratio:
        del other, pixels
        found = prune_plan.__dict__["sizes"][id(one)] / 247_000
        return Ratio(value=found, low=found, high=found, ms=found, other_ms=1)

    def measured(*_: object) -> Ratio:
        high = 0.69 if reached else 0.71
        return Ratio(value=0.65, low=0.6, high=high, ms=0.65, other_ms=1)

    from edgecls.workflows.prune_artefact import Shipping

    sizes: dict[int, int] = {}
    kept: list[Any] = []
    real = Shipping.__call__

    def shipped(self: Shipping, module: torch.nn.Module) -> Any:
        made = real(self, module)
        kept.append(made)
        sizes[id(made.backend)] = made.size_bytes
        return made

    monkeypatch.setitem(prune_plan.__dict__, "sizes", sizes)
    monkeypatch.setattr(Shipping, "__call__", shipped)
    monkeypatch.setattr(prune_plan, "time_ratio", planned)
    monkeypatch.setattr(prune_module, "time_ratio", measured)

    done = edgecls(*arguments(digits_folder, tmp_path / "out", until="latency=0.7x", epochs=0))

    assert done.code == (0 if reached else 1), done.err
    out = tmp_path / ("out" if reached else "out.failing")
    after = steps(out)[-1]
    assert int(after["size_bytes"]) <= 0.7 * 247_000
    assert float(after["speedup"]) == pytest.approx(1 / 0.65)
    if not reached:
        assert "found 0.65x, at most 0.71x with 95 % confidence" in done.err


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        ({"method": "global", "until": "latency=0.5x"}, 2, "as slow as before"),
        ({"method": "layer", "until": "size=0.5x"}, 2, "as many bytes"),
        ({"method": "2:4", "until": "latency=0.5x"}, 2, "sparse kernels"),
        ({"method": "soft", "importance": "taylor"}, 2, "by their norm"),
        ({"method": "soft", "steps": 2}, 2, "in one step"),
        ({"method": "soft", "epochs": 1}, 2, "--epochs 2 or more"),
        ({"until": "params=0.99999x", "round-to": 128}, 2, "lower --round-to"),
        ({"until": "params=90k"}, 2, "reached already"),
        ({"until": "latency=3ms"}, 2, "not the device's"),
        ({"precision": "int16x8", "target": "jetson"}, 2, "does not run"),
        ({"lr": "1e30"}, 1, "training diverged"),
    ],
)
def test_refusals(
    edgecls: Command, digits_folder: Path, tmp_path: Path, more: dict[str, object], code: int,
    said: str,
) -> None:  # fmt: skip
    done = edgecls(*arguments(digits_folder, tmp_path / "out", **more))

    assert (done.code, said in done.err) == (code, True), done.err
    assert not (tmp_path / "out").exists()


def test_random_weights_and_folders_that_are_taken(
    edgecls: Command, digits_folder: Path, tmp_path: Path
) -> None:
    given = arguments(digits_folder, tmp_path / "out")
    random = edgecls("prune", "lenet5", *given[2:])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    taken = edgecls(*given)

    assert (random.code, "random weights" in random.err) == (2, True)
    assert (taken.code, "would be lost" in taken.err) == (2, True)


class Shortcut(torch.nn.Module):
    """Every channel passes through padded zeros."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(1, 4, 3, stride=4)
        self.wide = torch.nn.Conv2d(4, 8, 3, padding=1)
        self.head = torch.nn.Linear(8, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        short = torch.nn.functional.pad(x, (0, 0, 0, 0, 2, 2))
        found: torch.Tensor = self.head(torch.relu(self.wide(x) + short).mean((2, 3)))
        return found


def test_a_model_that_would_break_is_refused_with_the_layer(
    edgecls: Command, digits_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    source = Path(__file__).read_text()
    code = source[source.index("class Shortcut") : source.index("def test_a_model_that_would")]
    (tmp_path / "padded_net.py").write_text(f"import torch\n\n\n{code}")
    save_weights(Shortcut(), tmp_path / "w.safetensors")
    given = arguments(digits_folder, tmp_path / "out")[2:]

    done = edgecls("prune", "padded_net:Shortcut", "--weights", tmp_path / "w.safetensors",
                   "--preprocess", "mnist", *given)  # fmt: skip

    assert done.code == 4, done.err
    assert "no channels can be taken out of this model: wide: the graph leads to" in done.err


@pytest.mark.slow
def test_a_kill_anywhere_changes_nothing(
    edgecls: Command, digits_folder: Path, tmp_path: Path
) -> None:
    """SIGKILL when a step's start, its checkpoint, its end and its row have just been written."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    given = {"steps": 2, "epochs": 2, "importance": "activation"}
    edgecls(*arguments(digits_folder, whole, **given))
    command = [str(part) for part in arguments(digits_folder, cut, **given)]
    work = tmp_path / "cut.work"
    marks = (
        work / "state.json", work / "step-1" / "start", work / "step-1" / "last.ckpt",
        work / "step-1" / "done", work / "step-2" / "last.ckpt",
    )  # fmt: skip

    for place, mark in enumerate(marks):
        resume = ["--resume"] if place else []
        process = subprocess.Popen([sys.executable, "-m", "edgecls", *command, *resume])
        while not mark.exists() and process.poll() is None:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, mark
    refused = edgecls(*command)
    other = edgecls(*command, "--resume", "--until", "params=0.4x")
    done = edgecls(*command, "--resume")

    assert (refused.code, "--resume goes on" in refused.err) == (2, True)
    assert (other.code, "goal is 'params=0.5x' there" in other.err) == (4, True)
    assert done.code == 0, done.err
    for name in ("model.safetensors", "metrics.csv"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()
    same = ("parameters", "macs", "size_bytes", "top1")
    assert [[row[key] for key in same] for row in steps(cut)] == [
        [row[key] for key in same] for row in steps(whole)
    ]
    assert not work.exists()


def test_a_kill_while_its_work_is_removed(
    edgecls: Command, digits_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OUT is whole by then: going on finds it, and nothing of the work is under its name."""
    command = (*arguments(digits_folder, tmp_path / "out", epochs=0), "--json")

    def killed(path: Any, **given: Any) -> None:
        if (Path(path) / "step-1").exists():
            (Path(path) / "state.json").unlink()
            raise KeyboardInterrupt
        rmtree(path, **given)

    rmtree = shutil.rmtree
    with monkeypatch.context() as patch:
        patch.setattr("edgecls.core.files.shutil.rmtree", killed)
        cut = edgecls(*command)
    before = (tmp_path / "out" / "model.safetensors").read_bytes()
    done = edgecls(*command, "--resume")
    other = edgecls(*command, "--resume", "--until", "params=0.4x")
    anew = edgecls(*command)

    assert cut.code == 130
    assert not (tmp_path / "out.work").exists()
    assert (done.code, json.loads(done.out)["reached"]) == (0, True), done.err
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == before
    assert (other.code, "goal is 'params=0.5x' there" in other.err) == (4, True)
    assert (anew.code, "exists and would be lost" in anew.err) == (2, True)


@pytest.mark.slow
def test_resnet_to_a_bundle(edgecls: Command, edgecls_data: Path, tmp_path: Path) -> None:
    """CIFAR ResNet-20 with its option-A shortcuts, narrower by measured bytes, to a bundle."""
    script = edgecls_data / "cifar10" / "unpack.py"
    for part in ("dev_train5000", "dev_test1000"):
        subprocess.run([sys.executable, script, part, tmp_path / part], check=True)
    for part, every in (("dev_train5000", 10), ("dev_test1000", 5)):
        for place, file in enumerate(sorted((tmp_path / part).rglob("*.png"))):
            if place % every:
                file.unlink()
    weights = next((edgecls_data / "weights").glob("resnet20-*.th"))
    out = tmp_path / "out"

    done = edgecls(
        "prune", "cifar_resnet20", "--weights", weights, "--data", tmp_path / "dev_train5000",
        "--val", tmp_path / "dev_test1000", "--until", "size=0.6x", "--epochs", 1, "--threads", 1,
        "-o", out,
    )  # fmt: skip

    assert done.code == 0, done.err
    assert "the channels of conv1 stay" in done.err
    before, after = steps(out)
    assert int(after["size_bytes"]) <= 0.6 * int(before["size_bytes"])
    assert float(after["top1"]) > 60
    data, judge = tmp_path / "dev_train5000", tmp_path / "dev_test1000"
    bundle = edgecls(
        "export", out, "--target", "raspberry-pi", "--calib", data, "-o", tmp_path / "bundles"
    )
    assert bundle.code == 0, bundle.err
    judged = edgecls("evaluate", tmp_path / "bundles" / "raspberry-pi", "--data", judge, "--json")
    assert json.loads(judged.out)["top1"] == pytest.approx(float(after["top1"]), abs=5)
