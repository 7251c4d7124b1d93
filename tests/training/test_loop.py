"""The training loop: it learns, the same way each time, and says when it diverges."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import safetensors.torch
import torch

from edgecls.core.errors import DataError, ModelError, TrainingError
from edgecls.core.preprocess import PRESETS
from edgecls.data.dataset import Dataset
from edgecls.data.mnist import mnist_5k
from edgecls.data.split import split_by_content
from edgecls.models import load_model
from edgecls.models.lenet import LeNet5
from edgecls.training import Fit, Settings, evaluate, in_memory, save_weights
from edgecls.training.distributed import Group

T = TypeVar("T")
Make = Callable[..., Fit]
Tiny = Callable[..., torch.nn.Sequential]
MNIST = PRESETS["mnist"]


class Recorder:
    """Keeps what it was told."""

    def __init__(self) -> None:
        self.tracked: list[tuple[str, int | None, int]] = []

    def track(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        items = list(items)
        self.tracked.append((description, total, len(items)))
        yield from items

    def step(self, description: str) -> None: ...

    def note(self, message: str) -> None: ...


def digits() -> Dataset:
    images, labels = mnist_5k()
    names = tuple(str(digit) for digit in range(10))
    return Dataset(name="digits", classes=names, labels=labels, pixels=images[..., None])


def top1(module: torch.nn.Module, dataset: Dataset) -> float:
    assert dataset.pixels is not None
    batch = (MNIST.normalize(dataset.pixels), dataset.labels)
    return evaluate(module, [batch], group=Group())[1]


def test_lenet_learns_mnist(tmp_path: Path) -> None:
    """4,000 real digits to learn from, the other 1,000 to judge by; the weights survive a file."""
    every = digits()
    assert every.pixels is not None
    seen, unseen = split_by_content(every.pixels, every.labels, held_out=1000, seed=0)
    settings = Settings(epochs=6)
    batches, steps = in_memory(every.subset(seen), MNIST, settings)
    module = LeNet5()

    history = Fit(settings=settings, train=batches, steps_per_epoch=steps)(module)
    accuracy = top1(module, every.subset(unseen))
    save_weights(module, tmp_path / "lenet.safetensors")
    again = load_model("lenet5", weights=tmp_path / "lenet.safetensors").module

    assert accuracy >= 97.0
    assert history[-1].steps == 6 * 125
    losses = [row.train_loss for row in history]
    assert losses == sorted(losses, reverse=True)
    assert not module.training
    assert again is not None
    assert top1(again, every.subset(unseen)) == accuracy


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_every_optimizer_learns_stripes(make_fit: Make, tiny: Tiny, optimizer: Any) -> None:
    settings = Settings(epochs=8, batch=16, optimizer=optimizer, learning_rate=0.02)

    history = make_fit(settings)(tiny())

    assert history[-1].val_top1 is not None
    assert history[-1].val_top1 > 75
    assert history[-1].train_loss < history[0].train_loss


def test_the_same_seed_gives_the_same_weights(make_fit: Make, tiny: Tiny) -> None:
    state = torch.get_rng_state()
    found = []
    for seed in (1, 1, 2):
        module = tiny()
        make_fit(Settings(epochs=2, batch=16, seed=seed))(module)
        found.append(module.state_dict())

    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert not all(torch.equal(found[0][name], found[2][name]) for name in found[0])
    assert torch.equal(torch.get_rng_state(), state)


def test_one_step_by_hand(make_fit: Make) -> None:
    """Label smoothing, Nesterov's step and decay, written out: two classes, one weight matrix."""
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    weight, bias = (value.detach().clone().double() for value in module.parameters())
    images = np.random.default_rng(0).normal(size=(2, 3, 2, 2)).astype(np.float32)
    labels = np.asarray([2, 0])
    settings = Settings(
        epochs=1, batch=2, schedule="constant", learning_rate=0.5, weight_decay=0.1,
        label_smoothing=0.3,
    )  # fmt: skip

    (row,) = Fit(settings=settings, train=lambda _: [(images, labels)], steps_per_epoch=1)(module)

    x = torch.from_numpy(images).double().reshape(2, 12)
    share = torch.softmax(x @ weight.T + bias, 1)
    target = torch.full((2, 3), 0.1, dtype=torch.float64)
    target[0, 2] = target[1, 0] = 0.8
    gradient = (share - target).T @ x / 2 + 0.1 * weight
    # The first step of Nesterov's momentum: g + 0.9 g.
    expected = weight - 0.5 * 1.9 * gradient
    assert torch.allclose(module[1].weight.double(), expected, atol=1e-6)
    assert row.train_loss == pytest.approx(float(-(target * share.log()).sum(1).mean()), rel=1e-6)


def test_gradients_are_clipped() -> None:
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    before = [value.detach().clone() for value in module.parameters()]
    images = np.full((2, 3, 2, 2), 100, np.float32)
    settings = Settings(
        epochs=1, batch=2, schedule="constant", learning_rate=1.0, momentum=0, weight_decay=0,
        clip_norm=0.01,
    )  # fmt: skip

    Fit(settings=settings, train=lambda _: [(images, np.asarray([0, 1]))], steps_per_epoch=1)(
        module
    )

    moved = torch.cat([(b - a).flatten() for a, b in zip(module.parameters(), before, strict=True)])
    assert float(moved.detach().norm()) == pytest.approx(0.01, rel=1e-3)


def test_soft_labels_are_learned_from() -> None:
    """What mixup gives: probabilities; a half-and-half target has log(2) as its least loss."""
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3, 2))
    images = np.zeros((4, 3, 1, 1), np.float32)
    soft = np.full((4, 2), 0.5, np.float32)
    settings = Settings(epochs=20, batch=4, label_smoothing=0, learning_rate=0.3)

    history = Fit(settings=settings, train=lambda _: [(images, soft)], steps_per_epoch=1)(module)

    assert history[-1].train_loss == pytest.approx(np.log(2), abs=1e-3)


@pytest.mark.parametrize("at", [1, 2])
def test_divergence_names_the_step_and_keeps_the_checkpoint(
    make_fit: Make, tiny: Tiny, tmp_path: Path, at: int
) -> None:
    settings = Settings(epochs=3, batch=16)
    good = make_fit(settings)

    def train(epoch: int) -> Iterator[Any]:
        for step, (images, labels) in enumerate(good.train(epoch)):
            yield (images * np.float32(np.nan) if (epoch, step) == (at, 3) else images), labels

    module = tiny()
    with pytest.raises(
        TrainingError, match=rf"the loss is nan at step 4 of epoch {at + 1}; .*kept"
    ):
        make_fit(settings, tmp_path, train=train)(module)

    kept = safetensors.torch.load_file(tmp_path / "model.safetensors")
    assert all(bool(value.isfinite().all()) for value in kept.values())
    again = make_fit(settings, tmp_path)(tiny(), resume=True)
    assert again == make_fit(settings)(tiny())


def test_weights_that_end_as_nan_are_not_kept(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3, 2))
    images = np.full((2, 3, 1, 1), 1e30, np.float32)
    settings = Settings(epochs=1, batch=2, learning_rate=1e30, schedule="constant")

    with pytest.raises(TrainingError, match=r"NaN or infinity in 1\.weight"):
        Fit(settings=settings, train=lambda _: [(images, np.asarray([0, 1]))], steps_per_epoch=1,
            out=tmp_path)(module)  # fmt: skip

    assert [file.name for file in tmp_path.iterdir()] == ["metrics.csv"]


def test_progress_counts_steps(make_fit: Make, tiny: Tiny) -> None:
    recorder = Recorder()

    make_fit(Settings(epochs=2, batch=16), progress=recorder)(tiny())

    assert recorder.tracked == [("epoch 1/2", 6, 6), ("epoch 2/2", 6, 6)]


def test_early_stopping_ends_with_the_best_weights(
    make_fit: Make, tiny: Tiny, tmp_path: Path
) -> None:
    settings = Settings(epochs=50, batch=16, patience=2, learning_rate=1e-12)
    module = tiny()

    history = make_fit(settings, tmp_path)(module)

    assert len(history) < 50
    kept = safetensors.torch.load_file(tmp_path / "model.safetensors")
    assert kept.keys() == module.state_dict().keys()


def test_averaged_weights_are_what_is_judged_and_kept(
    make_fit: Make, tiny: Tiny, unseen: tuple[Any, Any], tmp_path: Path
) -> None:
    module = tiny()
    history = make_fit(Settings(epochs=3, batch=16, ema=0.9), tmp_path)(module)

    assert evaluate(module, [unseen], group=Group()) == (history[-1].val_loss, history[-1].val_top1)
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert torch.equal(content["state_dict_ema"]["0.weight"], module[0].weight)
    assert not torch.equal(content["state_dict"]["0.weight"], module[0].weight)


def test_a_module_with_auxiliary_heads_is_refused() -> None:
    class Two(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = torch.nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> Any:
            return self.fc(x.flatten(1)), 0

    batch = (np.zeros((2, 3, 1, 1), np.float32), np.asarray([0, 1]))

    with pytest.raises(ModelError, match="answers with a tuple"):
        Fit(settings=Settings(epochs=1, batch=2), train=lambda _: [batch], steps_per_epoch=1)(Two())


def test_batches_that_are_missing(make_fit: Make, tiny: Tiny) -> None:
    batch = (np.zeros((2, 3, 8, 8), np.float32), np.asarray([0, 1]))

    with pytest.raises(DataError, match="expected 6 batches, found 2"):
        make_fit(Settings(epochs=1, batch=16), train=lambda _: [batch] * 2)(tiny())


def test_accuracy_is_a_percentage() -> None:
    class Ink(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            total = x.sum((1, 2, 3))
            return torch.stack([-total, total], 1)

    images = np.zeros((8, 4, 4, 1), np.uint8)
    images[3:] = 255
    labels = np.asarray([0, 0, 0, 1, 1, 1, 0, 0])
    batches = [(MNIST.normalize(images[k : k + 3]), labels[k : k + 3]) for k in (0, 3, 6)]

    assert evaluate(Ink(), batches, group=Group())[1] == 75.0


def test_weights_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"old")
    module = LeNet5()

    save_weights(module, path)

    found = safetensors.torch.load_file(path)
    assert all(torch.equal(found[name], value) for name, value in module.state_dict().items())
    assert [file.name for file in tmp_path.iterdir()] == ["w.safetensors"]
