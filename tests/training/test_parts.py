"""Schedules, averages and tables against closed forms and other implementations."""

from __future__ import annotations

import math

import pytest
import torch

from edgecls.core.errors import UsageError
from edgecls.training import Epoch, Settings
from edgecls.training.average import WeightAverage
from edgecls.training.history import best_epoch, out_of_patience, to_csv
from edgecls.training.optimizer import make_optimizer
from edgecls.training.schedule import Schedule, make_schedule

Optimizer = torch.optim.Optimizer
Scheduler = torch.optim.lr_scheduler.LRScheduler


def sgd(rate: float = 1.0) -> Optimizer:
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate)


def played(optimizer: Optimizer, scheduler: Scheduler, steps: int) -> list[float]:
    rates = []
    for _ in range(steps):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("steps", [10, 37, 200])
def test_one_cycle_is_torchs(steps: int) -> None:
    optimizer = sgd()
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=steps, pct_start=0.3)

    ours = make_schedule(Settings(epochs=1), steps)

    expected = played(optimizer, theirs, steps - 1)
    assert [ours(step) for step in range(steps - 1)] == pytest.approx(expected, rel=1e-9)
    assert ours(steps - 1) == pytest.approx(1 / 25e4)


def test_cosine_is_torchs() -> None:
    optimizer = sgd()
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 50)

    ours = Schedule(name="cosine", steps=50, warmup=0)

    assert [ours(step) for step in range(50)] == pytest.approx(played(optimizer, theirs, 50))


def test_step_is_torchs() -> None:
    optimizer = sgd()
    theirs = torch.optim.lr_scheduler.MultiStepLR(optimizer, [20, 30], gamma=0.1)

    ours = Schedule(name="step", steps=40, warmup=0)

    assert [ours(step) for step in range(40)] == pytest.approx(played(optimizer, theirs, 40))


@pytest.mark.parametrize("name", ["cosine", "step", "constant"])
def test_warm_up_is_a_line_to_the_peak(name: str) -> None:
    settings = Settings(epochs=10, schedule=name, warmup=2.0)  # type: ignore[arg-type]

    ours = make_schedule(settings, 5)

    assert [ours(step) for step in range(10)] == pytest.approx([k / 10 for k in range(1, 11)])
    assert ours(10) == 1.0


def test_one_cycle_takes_a_warm_up() -> None:
    ours = make_schedule(Settings(epochs=10, warmup=1.0), 5)

    assert max(range(50), key=ours) == 4
    assert ours(4) == 1.0


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("name", ["one-cycle", "cosine", "step", "constant"])
def test_the_shortest_trainings(name: str, steps: int) -> None:
    ours = make_schedule(Settings(epochs=1, schedule=name), steps)  # type: ignore[arg-type]

    assert all(0 < ours(step) <= 1 for step in range(steps))


def test_average_is_the_recurrence() -> None:
    module = torch.nn.Linear(1, 1, bias=False)
    average = WeightAverage(module, 0.9)
    expected = module.weight.item()

    for step in range(40):
        with torch.no_grad():
            module.weight.fill_(math.sin(step))
        average.update(module, step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * math.sin(step)

    assert average.module.get_parameter("weight").item() == pytest.approx(expected, rel=1e-5)


def test_average_has_running_statistics_and_counts() -> None:
    module = torch.nn.BatchNorm1d(2)
    average = WeightAverage(module, 0.5)
    module(torch.randn(8, 2) + 3)

    average.update(module, 1000)

    assert torch.allclose(average.module.running_mean, module.running_mean / 2)  # type: ignore[operator]
    assert int(average.module.num_batches_tracked) == 1  # type: ignore[arg-type]
    assert not average.module.training


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_only_matrices_are_decayed(name: str) -> None:
    settings = Settings(epochs=1, optimizer=name, weight_decay=0.25)  # type: ignore[arg-type]

    groups = make_optimizer(torch.nn.Linear(3, 2), settings).param_groups

    assert [(g["weight_decay"], g["params"][0].ndim) for g in groups] == [(0.25, 2), (0.0, 1)]
    assert all(group["lr"] == settings.peak for group in groups)


def test_frozen_parameters_are_not_optimized() -> None:
    module = torch.nn.Linear(3, 2)
    module.weight.requires_grad_(False)

    (group,) = make_optimizer(module, Settings(epochs=1)).param_groups

    assert [value is module.bias for value in group["params"]] == [True]


def epochs(*top1: float | None) -> list[Epoch]:
    return [
        Epoch(epoch=k, steps=k, learning_rate=0.1, train_loss=1.0, train_top1=50.0, val_top1=value)
        for k, value in enumerate(top1, start=1)
    ]


def test_the_first_of_the_best_epochs_is_kept() -> None:
    assert best_epoch(epochs(10, 30, 20, 30)).epoch == 2  # type: ignore[union-attr]
    assert best_epoch(epochs(None, None)).epoch == 2  # type: ignore[union-attr]
    assert best_epoch([]) is None


def test_patience_counts_from_the_best_epoch() -> None:
    assert not out_of_patience(epochs(10, 30, 20), 2)
    assert out_of_patience(epochs(10, 30, 20, 25), 2)
    assert not out_of_patience(epochs(10, 30, 20, 25), None)


def test_metrics_keep_every_digit() -> None:
    row = Epoch(epoch=1, steps=3, learning_rate=0.1 + 0.2, train_loss=1 / 3, train_top1=50.0)

    head, line = to_csv([row]).decode().splitlines()

    assert head == "epoch,steps,learning_rate,train_loss,train_top1,val_loss,val_top1"
    assert line.split(",")[2:] == ["0.30000000000000004", "0.3333333333333333", "50.0", "", ""]


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0}, {"batch": 1}, {"learning_rate": float("nan")}, {"momentum": 1.0},
        {"label_smoothing": 1.0}, {"ema": 1.0}, {"patience": 0}, {"warmup": 11.0}, {"seed": -1},
    ],
)  # fmt: skip
def test_settings_that_cannot_be_meant(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="must lie in"):
        Settings(**{"epochs": 10, **wrong})  # type: ignore[arg-type]
