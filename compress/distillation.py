"""What a student learns from: its teacher's answers, the labels, and where the teacher looks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional

from ..core.errors import ModelError, UsageError

# In float16 a map's squares leave its range.
_EPSILON: Final = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """How much is learned from what.

    Attributes:
        temperature: T, by which both models' logits are divided before they are compared; above 1
            it shows what the teacher takes wrong classes for.
        alpha: The part of the loss that is the teacher's, 0..1; the labels' is the rest.
        label_smoothing: What part of a label is spread over all classes.
        hints: Layers of the student and of the teacher whose attention maps are compared.
        hint_weight: What their mean squared difference is multiplied by.
    """

    temperature: float = 4.0
    alpha: float = 0.9
    label_smoothing: float = 0.1
    hints: tuple[tuple[str, str], ...] = ()
    hint_weight: float = 1000.0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        for name, value, low, high in (
            ("temperature", self.temperature, 0.01, 1000.0),
            ("alpha", self.alpha, 0.0, 1.0),
            ("hint weight", self.hint_weight, 0.0, 1e9),
        ):
            if not low <= value <= high:  # NaN lies nowhere
                raise UsageError(f"{name} must lie in {low:g}..{high:g}, found {value:g}")
        if self.alpha == 0 and not (self.hints and self.hint_weight):
            raise UsageError("with --alpha 0 nothing comes from the teacher: that is edgecls train")


def distillation_loss(
    logits: torch.Tensor, labels: torch.Tensor, taught: torch.Tensor, lesson: Lesson
) -> torch.Tensor:
    """Return alpha T^2 KL(teacher || student) + (1 - alpha) cross-entropy, the batch's mean.

    Gradients of the soft part shrink with 1 / T^2, which its factor makes up for.

    Args:
        logits: The student's (N, classes), of any float type; the sums are float32.
        labels: Classes (N,) int64.
        taught: The teacher's logits (N, classes).
        lesson: The weights of the parts.

    Source: Hinton, Vinyals and Dean 2015, arXiv:1503.02531, section 2.
    """
    student, temperature = logits.float(), lesson.temperature
    soft = functional.kl_div(
        functional.log_softmax(student / temperature, dim=1),
        functional.log_softmax(taught.float() / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    hard = functional.cross_entropy(student, labels, label_smoothing=lesson.label_smoothing)
    return lesson.alpha * temperature**2 * soft + (1 - lesson.alpha) * hard


def attention_map(features: torch.Tensor) -> torch.Tensor:
    """Return where a layer is active: the mean square over channels, as a unit vector.

    The number of channels does not matter, so that a narrow student compares with a wide teacher.

    Args:
        features: (N, C, H, W).

    Returns:
        Shape (N, H * W) float32.

    Source: Zagoruyko and Komodakis 2017, arXiv:1612.03928, section 3.1 (F_sum, p = 2).
    """
    squares = features.float().pow(2).mean(1).flatten(1)
    return functional.normalize(squares, dim=1, eps=_EPSILON)


class Watched:
    """A module whose layers' attention maps are taken as it computes."""

    def __init__(self, module: nn.Module, layers: Sequence[str], whose: str) -> None:
        """Begin to watch.

        Args:
            module: A student or a teacher.
            layers: Names of its modules.
            whose: Which of the two, for errors.

        Raises:
            UsageError: There is no such layer.
        """
        parts = dict(module.named_modules())
        self._layers, self._whose = tuple(layers), whose
        self._maps: dict[str, torch.Tensor] = {}
        self._handles = []
        for name in self._layers:
            if not name or name not in parts:
                known = ", ".join(part for part in parts if part and part.count(".") < 2)
                raise UsageError(f"--hint: the {whose} has no layer {name!r}; there are: {known}")
            self._handles.append(parts[name].register_forward_hook(self._taker(name)))

    def _taker(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def take(part: nn.Module, inputs: Any, output: Any) -> None:
            del part, inputs
            if not isinstance(output, torch.Tensor) or output.ndim != 4:
                found = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output)
                raise ModelError(
                    f"--hint: the {self._whose}'s layer {name!r} gives {found}, expected features "
                    "(N, C, H, W); name a convolution or a block"
                )
            self._maps[name] = attention_map(output)

        return take

    def take(self) -> tuple[torch.Tensor, ...]:
        """Return the maps of the last answer, in the order of the layers, and forget them."""
        found = tuple(self._maps[name] for name in self._layers)
        self._maps.clear()
        return found

    def close(self) -> None:
        """Leave the module as it was."""
        for handle in self._handles:
            handle.remove()


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """The loss of a step, as ``training.Fit`` calls it.

    Attributes:
        lesson: The weights of its parts.
        student: Gives the maps of the step's answer; None without hints.
    """

    lesson: Lesson
    student: Watched | None = None

    def __call__(
        self, logits: torch.Tensor, labels: torch.Tensor, taught: torch.Tensor, *maps: torch.Tensor
    ) -> torch.Tensor:
        """Return the loss.

        Args:
            logits: The student's (N, classes).
            labels: (N,) int64.
            taught: The teacher's logits.
            maps: Its attention maps, each (N, H * W).

        Raises:
            UsageError: A hint's two layers see different numbers of places.
        """
        loss = distillation_loss(logits, labels, taught, self.lesson)
        if self.student is None:
            return loss
        for (mine, theirs), own, other in zip(
            self.lesson.hints, self.student.take(), maps, strict=True
        ):
            if own.shape != other.shape:
                raise UsageError(
                    f"--hint {mine}={theirs}: the student's layer has {own.shape[1]} places, the "
                    f"teacher's {other.shape[1]}; name layers of the same height and width"
                )
            loss = loss + self.lesson.hint_weight * (own - other).pow(2).mean()
        return loss
