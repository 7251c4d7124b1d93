"""A plain supervised loop for images that fit into memory: the same seed gives the same weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray

from ..core.errors import TrainingError
from ..core.files import write_atomic
from ..core.preprocess import Preprocess
from ..core.progress import Progress, Quiet
from ..core.values import Pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingResult:
    """How training went.

    Attributes:
        steps: How many batches were learned from.
        losses: The mean loss of each epoch.
    """

    steps: int
    losses: tuple[float, ...]


def train_classifier(
    module: torch.nn.Module,
    images: Pixels,
    labels: NDArray[np.integer],
    *,
    preprocess: Preprocess,
    epochs: int,
    seed: int,
    batch: int = 32,
    learning_rate: float = 0.05,
    weight_decay: float = 5e-4,
    label_smoothing: float = 0.0,
    progress: Progress | None = None,
) -> TrainingResult:
    """Train with SGD, Nesterov momentum 0.9 and a one-cycle learning rate; leaves evaluation mode.

    On one machine with the same number of threads the same seed gives the same weights, bit for
    bit.

    Args:
        module: Computes logits (N, classes) from (N, C, H, W); its weights are changed.
        images: Shape (N, H, W, C), uint8, after resize and crop.
        labels: Class indices, shape (N,).
        preprocess: Whose normalisation is applied.
        epochs: How often each image is seen.
        seed: Chooses the order of the images and what dropout drops.
        batch: Images per step; the rest of an epoch that fills no batch is left out.
        learning_rate: The peak of the cycle.
        weight_decay: On the weights of convolutions and matrix products only.
        label_smoothing: What part of the target is spread over all classes.
        progress: Shows the epochs.

    Raises:
        TrainingError: The loss became NaN or infinite; the message names the step.
        ValueError: The shapes do not fit, or there are fewer images than one batch.
    """
    if images.ndim != 4 or len(images) != len(labels) or len(images) < batch or epochs < 1:
        raise ValueError(
            f"expected images (N, H, W, C), N labels, N >= batch and epochs >= 1, found "
            f"{images.shape}, {labels.shape}, batch {batch}, {epochs} epochs"
        )
    targets = torch.from_numpy(labels.astype(np.int64))
    steps = len(images) // batch
    optimizer = _optimizer(module, learning_rate, weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=steps * epochs, pct_start=0.3
    )
    objective = torch.nn.CrossEntropyLoss(label_smoothing=label_smoothing)
    order = np.random.default_rng(seed)
    losses: list[float] = []
    module.train()
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        for epoch in (progress or Quiet()).track(range(epochs), "training", total=epochs):
            total = 0.0
            shuffled = order.permutation(len(images))[: steps * batch].reshape(steps, batch)
            for step, chosen in enumerate(shuffled, start=1):
                tensor = torch.from_numpy(preprocess.normalize(images[chosen]))
                loss = objective(module(tensor), targets[chosen])
                value = float(loss.detach())
                if not math.isfinite(value):
                    raise TrainingError(
                        f"training diverged: the loss is {value} at step {step} of epoch "
                        f"{epoch + 1}; lower the learning rate ({learning_rate:g})"
                    )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                total += value
            losses.append(total / steps)
    module.eval()
    return TrainingResult(steps=steps * epochs, losses=tuple(losses))


def evaluate_classifier(
    module: torch.nn.Module,
    images: Pixels,
    labels: NDArray[np.integer],
    *,
    preprocess: Preprocess,
    batch: int = 250,
) -> float:
    """Return the top-1 accuracy in percent, in evaluation mode."""
    module.eval()
    correct = 0
    with torch.inference_mode():
        for start in range(0, len(images), batch):
            tensor = torch.from_numpy(preprocess.normalize(images[start : start + batch]))
            answers = module(tensor).argmax(1).numpy()
            correct += int(np.sum(answers == labels[start : start + batch]))
    return 100 * correct / len(images)


def save_weights(module: torch.nn.Module, path: Path) -> None:
    """Write the module's state dict as safetensors, whole or not at all.

    Raises:
        OSError: The file could not be written.
    """
    state = {name: value.detach().contiguous() for name, value in module.state_dict().items()}
    write_atomic(path, safetensors.torch.save(state))


def _optimizer(
    module: torch.nn.Module, learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Biases and batch norm's scales have one axis: they are not decayed."""
    matrices = [value for value in module.parameters() if value.ndim > 1]
    vectors = [value for value in module.parameters() if value.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=learning_rate,
        momentum=0.9,
        nesterov=True,
    )
