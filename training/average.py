"""A moving average of the weights, which answers better than the last step's."""

from __future__ import annotations

import copy

import torch


class WeightAverage:
    """Keeps ``average = decay * average + (1 - decay) * weights``, batch norm's statistics too.

    The decay begins low, ``(1 + step) / (10 + step)``, so that the random start is soon forgotten.

    Source: Polyak and Juditsky, SIAM J. Control Optim. 30 (1992); the start as in TensorFlow's
    ExponentialMovingAverage.
    """

    def __init__(self, module: torch.nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, module: torch.nn.Module, step: int) -> None:
        """Take in the weights after ``step`` (0, 1, ...)."""
        decay = min(self._decay, (1 + step) / (10 + step))
        current = module.state_dict()
        for name, average in self.module.state_dict().items():
            if average.is_floating_point():
                average.lerp_(current[name], 1 - decay)
            else:
                average.copy_(current[name])
