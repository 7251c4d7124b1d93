"""`edgecls tune`: a search that goes on, and leaves what `edgecls train -c` takes."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgecls.cli import training_options, tune
from edgecls.core.errors import CheckpointError, TrainingError
from edgecls.core.progress import Quiet
from edgecls.data.augment import PRESETS
from edgecls.data.mnist import mnist_5k, write_image_folder
from edgecls.training.settings import OPTIMIZERS, SCHEDULES, Settings
from edgecls.workflows import tune as workflow
from edgecls.workflows.train import TrainOptions
from edgecls.workflows.training_data import DataChoice

optuna = pytest.importorskip("optuna")

Command = Callable[..., Any]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("digits")
    images, labels = mnist_5k()
    names = tuple(str(digit) for digit in range(10))
    write_image_folder(images[::20], labels[::20], root / "train", names)
    write_image_folder(images[1::50], labels[1::50], root / "val", names)
    return root


def arguments(data: Path, out: Path, trials: int, *more: object) -> list[object]:
    return [
        "tune", "lenet5", "--data", data / "train", "--val", data / "val", "--epochs", 2,
        "--augment", "none", "--search", "lr", "--search", "batch", "--threads", 1, "--trials",
        trials, "--study", out / "study.journal", "-o", out, *more,
    ]  # fmt: skip


def table(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "trials.csv").read_text().splitlines()))


def test_a_search_leaves_what_train_takes(edgecls: Command, data: Path, tmp_path: Path) -> None:
    found = edgecls(*arguments(data, tmp_path, 5, "--json"))
    trained = edgecls("train", "-c", tmp_path / "edgecls.toml", "--json")

    assert (found.code, trained.code) == (0, 0), found.err + trained.err
    best = json.loads(found.out)["best"]
    rows = table(tmp_path)
    assert len(rows) == 5
    assert best["top1"] == max(float(row["top1"]) for row in rows if row["outcome"] == "done")
    again = json.loads(trained.out)
    assert again["best"]["val_top1"] == best["top1"]
    assert (tmp_path / "best" / "model.safetensors").is_file()
    assert (tmp_path / "importance.png").read_bytes().startswith(b"\x89PNG")


def test_a_search_in_two_parts_is_the_search_in_one(
    edgecls: Command, data: Path, tmp_path: Path
) -> None:
    edgecls(*arguments(data, tmp_path / "whole", 4))
    edgecls(*arguments(data, tmp_path / "parts", 2))
    edgecls(*arguments(data, tmp_path / "parts", 4))

    assert table(tmp_path / "parts") == table(tmp_path / "whole")


def options(data: Path, out: Path, **settings: Any) -> workflow.TuneOptions:
    train = TrainOptions(
        model="lenet5", out=out, settings=Settings(**{"epochs": 2, **settings}), threads=1,
        data=DataChoice(path=data / "train", val=data / "val", augment=PRESETS["none"]),
    )  # fmt: skip
    return workflow.TuneOptions(
        train=train, trials=2, study=out / "study.journal", search=("lr",), pruner="none"
    )


def test_a_trial_that_was_killed_is_tried_again(data: Path, tmp_path: Path) -> None:
    first = workflow.tune(options(data, tmp_path), Quiet())
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.journal"))
    )
    study = optuna.load_study(study_name="edgecls", storage=storage)
    killed = study.ask()
    rate = killed.suggest_float("lr", 0.005, 0.5, log=True)

    second = workflow.tune(dataclasses.replace(options(data, tmp_path), trials=3), Quiet())

    assert second.rows[:2] == first.rows
    assert second.rows[2].params == {"lr": rate}


def test_trials_that_diverge_are_said_to(data: Path, tmp_path: Path) -> None:

    seen: list[workflow.TrialRow] = []

    with pytest.raises(TrainingError, match="all diverged"):
        workflow.tune(options(data, tmp_path, learning_rate=1e20), Quiet(), seen.append)

    assert [(row.outcome, row.top1) for row in seen] == [("diverged", None)] * 2


def test_bad_trials_are_pruned(data: Path, tmp_path: Path) -> None:
    """Five perfect trials are in the study: what is worse ends after its first epochs."""

    chosen = dataclasses.replace(options(data, tmp_path, epochs=4), trials=1, pruner="median")
    workflow.tune(chosen, Quiet())
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.journal"))
    )
    study = optuna.load_study(study_name="edgecls", storage=storage)
    space = {"lr": optuna.distributions.FloatDistribution(0.005, 0.5, log=True)}
    for _ in range(5):
        study.add_trial(
            optuna.trial.create_trial(
                params={"lr": 0.05}, distributions=space, value=100.0,
                intermediate_values=dict.fromkeys(range(1, 5), 100.0),
            )
        )  # fmt: skip

    result = workflow.tune(dataclasses.replace(chosen, trials=7), Quiet())

    assert result.rows[-1].outcome == "pruned"
    assert result.rows[-1].epochs < 4


@pytest.mark.parametrize("content", [b"not a journal\n", b"[1]\n"])
def test_a_file_that_is_no_study(data: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "study.journal").write_bytes(content)

    with pytest.raises(CheckpointError, match="not a study"):
        workflow.tune(options(data, tmp_path), Quiet())


def test_a_study_of_another_search(edgecls: Command, data: Path, tmp_path: Path) -> None:
    edgecls(*arguments(data, tmp_path, 1))

    done = edgecls(*arguments(data, tmp_path, 2, "--optimizer", "adam"))

    assert (done.code, "of another search" in done.err) == (4, True), done.err


def test_a_configuration_is_not_overwritten(edgecls: Command, data: Path, tmp_path: Path) -> None:
    mine = tmp_path / "edgecls.toml"
    mine.write_text("[train]\n")

    done = edgecls(*arguments(data, tmp_path, 1))

    assert (done.code, "would be lost" in done.err) == (2, True)
    assert mine.read_text() == "[train]\n"


def test_what_a_search_decides_cannot_be_given(
    edgecls: Command, data: Path, tmp_path: Path
) -> None:
    done = edgecls(*arguments(data, tmp_path, 1, "--search", "augment", "--mixup", 0.4))
    assert (done.code, "--mixup" in done.err) == (2, True)

    done = edgecls(*arguments(data, tmp_path, 1, "--lr", 0))
    assert (done.code, "learning rate must lie in" in done.err) == (2, True)


def test_a_search_needs_images_to_judge_by(edgecls: Command, data: Path, tmp_path: Path) -> None:
    done = edgecls("tune", "lenet5", "--data", data / "train", "--val-share", 0, "--epochs", 1,
                   "--trials", 1, "--study", tmp_path / "s", "-o", tmp_path)  # fmt: skip

    assert (done.code, "--val-share" in done.err) == (2, True)


def test_the_commands_choices_are_the_workflows() -> None:
    assert training_options.OPTIMIZERS == OPTIMIZERS
    assert training_options.SCHEDULES == SCHEDULES
    assert tuple(PRESETS) == training_options.AUGMENTS
    assert tune._SEARCHED == workflow.SEARCHED
    assert tune._PRUNERS == workflow.PRUNERS
