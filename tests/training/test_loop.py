"""The training loop: it learns real digits, the same way each time, and says when it diverges."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import safetensors.torch
import torch

from edgecls.core.errors import TrainingError
from edgecls.core.preprocess import PRESETS
from edgecls.data.mnist import mnist_5k
from edgecls.data.split import split_by_content
from edgecls.models import load_model
from edgecls.models.lenet import LeNet5
from edgecls.training import evaluate_classifier, save_weights, train_classifier

T = TypeVar("T")
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


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    images, labels = mnist_5k()
    return images[..., None], labels


def test_lenet_learns_mnist(digits: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    """4,000 real digits to learn from, the other 1,000 to judge by; the weights survive a file."""
    images, labels = digits
    seen, unseen = split_by_content(images, labels, held_out=1000, seed=0)
    module = LeNet5()

    result = train_classifier(
        module, images[seen], labels[seen], preprocess=MNIST, epochs=6, seed=0, label_smoothing=0.1
    )
    accuracy = evaluate_classifier(module, images[unseen], labels[unseen], preprocess=MNIST)
    save_weights(module, tmp_path / "lenet.safetensors")
    again = load_model("lenet5", weights=tmp_path / "lenet.safetensors").module

    assert accuracy >= 97.0
    assert result.steps == 6 * 125
    assert list(result.losses) == sorted(result.losses, reverse=True)
    assert not module.training
    assert again is not None
    assert evaluate_classifier(again, images[unseen], labels[unseen], preprocess=MNIST) == accuracy


def trained(images: np.ndarray, labels: np.ndarray, seed: int) -> dict[str, torch.Tensor]:
    module = load_model("lenet5").module
    assert module is not None
    train_classifier(module, images, labels, preprocess=MNIST, epochs=1, seed=seed)
    return dict(module.state_dict())


def test_the_same_seed_gives_the_same_weights(digits: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = digits[0][::20], digits[1][::20]
    state = torch.get_rng_state()
    first, second, other = (trained(images, labels, seed) for seed in (1, 1, 2))

    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
    assert torch.equal(torch.get_rng_state(), state)


def test_divergence_names_the_step(digits: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = digits[0][:128], digits[1][:128]

    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) at step \d+ of epoch \d+"):
        train_classifier(
            LeNet5(), images, labels, preprocess=MNIST, epochs=5, seed=0, learning_rate=1e18
        )


def test_progress_counts_epochs(digits: tuple[np.ndarray, np.ndarray]) -> None:
    recorder = Recorder()

    train_classifier(
        LeNet5(),
        digits[0][:64],
        digits[1][:64],
        preprocess=MNIST,
        epochs=2,
        seed=0,
        progress=recorder,
    )

    assert recorder.tracked == [("training", 2, 2)]


def test_weights_are_decayed_and_biases_are_not() -> None:
    """With zero gradients one step shrinks the matrix by lr * decay * (1 + momentum) exactly."""
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 2))
    with torch.no_grad():
        module[1].weight.fill_(1.0)
        module[1].bias.fill_(1.0)
    images = np.zeros((2, 28, 28, 1), np.uint8)
    images[:] = 33  # (33 / 255 - 0.1307) / 0.3081 is nearly zero: 0.0041
    labels = np.asarray([0, 1])
    before = module[1].bias.detach().clone()

    train_classifier(
        module, images, labels, preprocess=MNIST, epochs=4, seed=0, batch=2, weight_decay=0.5
    )

    assert torch.equal(module[1].bias, before)
    assert float(module[1].weight.detach().max()) < 0.97
    assert torch.equal(module[1].weight[0], module[1].weight[1])


def test_accuracy_is_a_percentage() -> None:
    class Ink(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            total = x.sum((1, 2, 3))
            return torch.stack([-total, total], 1)

    images = np.zeros((8, 4, 4, 1), np.uint8)
    images[3:] = 255
    labels = np.asarray([0, 0, 0, 1, 1, 1, 0, 0])

    assert evaluate_classifier(Ink(), images, labels, preprocess=MNIST, batch=3) == 75.0


@pytest.mark.parametrize(
    ("images", "labels", "epochs"),
    [
        ((5, 28, 28, 1), 5, 1),
        ((64, 28, 28), 64, 1),
        ((64, 28, 28, 1), 63, 1),
        ((64, 28, 28, 1), 64, 0),
    ],
)
def test_shapes_that_do_not_fit(images: tuple[int, ...], labels: int, epochs: int) -> None:
    with pytest.raises(ValueError, match="expected images"):
        train_classifier(
            LeNet5(),
            np.zeros(images, np.uint8),
            np.zeros(labels, np.int64),
            preprocess=MNIST,
            epochs=epochs,
            seed=0,
        )


def test_weights_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"old")
    module = LeNet5()

    save_weights(module, path)

    found = safetensors.torch.load_file(path)
    assert all(torch.equal(found[name], value) for name, value in module.state_dict().items())
    assert [file.name for file in tmp_path.iterdir()] == ["w.safetensors"]
