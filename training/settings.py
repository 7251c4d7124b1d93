"""How a classifier is trained: every number that decides the result."""

from __future__ import annotations

from typing import Final, Literal, get_args

import msgspec

from ..core.errors import UsageError

OptimizerName = Literal["sgd", "adam", "adamw"]
ScheduleName = Literal["one-cycle", "cosine", "step", "constant"]
OPTIMIZERS: Final[tuple[OptimizerName, ...]] = get_args(OptimizerName)
SCHEDULES: Final[tuple[ScheduleName, ...]] = get_args(ScheduleName)

# The usual peaks for each; SGD's for one cycle.
_RATES: Final[dict[OptimizerName, float]] = {"sgd": 0.05, "adam": 1e-3, "adamw": 1e-3}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The hyperparameters.

    Attributes:
        epochs: How often each image is seen.
        seed: Of the initial weights, the order, the augmentation and dropout.
        batch: Images per step, over all processes.
        optimizer: SGD has Nesterov's momentum.
        learning_rate: The peak of the schedule; None is 0.05 for SGD and 0.001 for the others.
        momentum: Of SGD.
        weight_decay: On the weights of convolutions and matrix products only.
        schedule: How the learning rate goes from step to step.
        warmup: Epochs in which it rises to its peak; None is 30 % of one cycle, else none.
        label_smoothing: What part of the target is spread over all classes.
        ema: Decay per step of a moving average of the weights, which is then what is judged and
            kept; None for the weights themselves.
        clip_norm: The largest norm of all gradients together; None for no limit.
        patience: Epochs without a better one after which the training ends; None for never.
        amp: Whether a GPU computes in 16 bits where that is safe.
    """

    epochs: int
    seed: int = 0
    batch: int = 32
    optimizer: OptimizerName = "sgd"
    learning_rate: float | None = None
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: ScheduleName = "one-cycle"
    warmup: float | None = None
    label_smoothing: float = 0.1
    ema: float | None = None
    clip_norm: float | None = None
    patience: int | None = None
    amp: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        ranges: tuple[tuple[str, float | None, float, float], ...] = (
            ("epochs", self.epochs, 1, 1e6),
            ("seed", self.seed, 0, 2**63),
            ("batch", self.batch, 2, 1e6),
            ("learning rate", self.learning_rate, 1e-12, 1e30),
            ("momentum", self.momentum, 0, 0.9999),
            ("weight decay", self.weight_decay, 0, 1),
            ("warm-up", self.warmup, 0, self.epochs),
            ("label smoothing", self.label_smoothing, 0, 0.9999),
            ("EMA decay", self.ema, 0, 0.999999),
            ("gradient norm", self.clip_norm, 1e-12, 1e30),
            ("patience", self.patience, 1, 1e6),
        )
        for name, value, low, high in ranges:
            if value is not None and not low <= value <= high:  # NaN lies nowhere
                raise UsageError(f"{name} must lie in {low:g}..{high:g}, found {value:g}")

    @property
    def peak(self) -> float:
        """The learning rate at the schedule's highest."""
        return _RATES[self.optimizer] if self.learning_rate is None else self.learning_rate
