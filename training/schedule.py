"""Learning rates in closed form: a resumed training needs only to know its step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from .settings import ScheduleName, Settings

_RISE: Final = 0.3
_START: Final = 1 / 25
_END: Final = _START / 1e4
_MILESTONES: Final = (0.5, 0.75)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The learning rate as a part of its peak.

    Attributes:
        name: ``one-cycle`` rises from 1/25 along half a cosine and falls along another to
            1/250,000 (Smith and Topin 2018, arXiv:1708.07120, as torch's OneCycleLR has it);
            ``cosine`` falls from 1 towards 0 (Loshchilov and Hutter 2017, arXiv:1608.03983);
            ``step`` is divided by 10 at 1/2 and 3/4; ``constant`` stays.
        steps: Of the whole training.
        warmup: Steps in which it rises; for all but one cycle along a line.
    """

    name: ScheduleName
    steps: int
    warmup: float

    def __call__(self, step: int) -> float:
        """Return the factor at ``step``, from 0 to ``steps`` - 1."""
        if self.name == "one-cycle":
            return self._one_cycle(step)
        if step < self.warmup:
            return min(1.0, (step + 1) / self.warmup)
        past = (step - self.warmup) / max(1.0, self.steps - self.warmup)
        if self.name == "cosine":
            return (1 + math.cos(math.pi * past)) / 2
        if self.name == "step":
            return 0.1 ** sum(step >= part * self.steps for part in _MILESTONES)
        return 1.0

    def _one_cycle(self, step: int) -> float:
        top, last = self.warmup - 1, self.steps - 1
        if step <= top:
            return _half_cosine(_START, 1.0, step / top if top > 0 else 1.0)
        return _half_cosine(1.0, _END, (step - top) / (last - top))


def make_schedule(settings: Settings, steps_per_epoch: int) -> Schedule:
    """Return the schedule of a whole training."""
    steps = settings.epochs * steps_per_epoch
    if settings.warmup is not None:
        warmup = settings.warmup * steps_per_epoch
    else:
        warmup = _RISE * steps if settings.schedule == "one-cycle" else 0.0
    return Schedule(name=settings.schedule, steps=steps, warmup=warmup)


def _half_cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * part))
