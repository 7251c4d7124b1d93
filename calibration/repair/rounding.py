"""Rounding that looks at the sum: each weight up or down, as the layer's output asks for.

Rounding each weight to the nearest code is best for the weights, not for what they sum up to. Which
neighbour each takes is chosen so that the mean square of the layer's output error is least; that is
e S e^T for a row's weight errors e and the second moment S of the inputs. Coordinate descent: the
flip that lowers it most, in every row at once, until none does. So no row is ever worse than with
the nearest codes on the images that gave S.

Source of the objective: Nagel et al. 2020 (AdaRound), arXiv:2004.10568, equation 13; there a
relaxation is trained, here the binary choice itself descends.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from .moments import Moments, Operand, Reals

_DAMPING: Final = 1e-3  # of the mean square: rows keep an opinion where no image showed anything
_TURNS: Final = 4  # flips per weight, at most


def rounded(operand: Operand, moments: Moments) -> Reals:
    """Return the weights on the grid of their scales, of the operand's shape.

    Quantizing them gives these codes again: the largest weight, from which the scale follows, keeps
    its own. Where a scale follows from something else, its rows are left as they are.
    """
    found = operand.matrix.copy()
    nearest = operand.codes()
    for group, codes in enumerate(nearest):
        second = moments.second[group]
        damped = second + _DAMPING * np.trace(second) / len(second) * np.eye(len(second))
        scales = operand.scales[group][:, None]
        on_grid = _descend(operand.matrix[group], codes, scales, damped) * scales
        keeps_scale = (np.abs(codes) == 127).any(1)
        if operand.shared:
            keeps_scale[:] = (np.abs(nearest) == 127).any()
        found[group][keeps_scale] = on_grid[keeps_scale]
    return found


def _descend(weights: Reals, codes: Reals, scales: Reals, second: Reals) -> Reals:
    """Return codes (O, K) whose output error is a local minimum over single flips."""
    codes = codes.copy()
    largest = np.abs(codes) == 127  # the scale follows from the largest weight: it stays
    error = codes * scales - weights
    pull = error @ second
    diagonal = np.diag(second)
    rows = np.arange(len(codes))
    for _ in range(_TURNS * codes.shape[1]):
        # To the other neighbour: down where it was rounded up.
        step = np.where(error > 0, -scales, scales)
        gain = 2 * step * pull + step**2 * diagonal
        gain[largest] = np.inf
        best = gain.argmin(1)
        flips = gain[rows, best] < -1e-12 * np.abs(pull * error).sum(1)
        if not flips.any():
            break
        chosen, places = rows[flips], best[flips]
        moved = step[chosen, places]
        codes[chosen, places] += np.sign(moved)
        error[chosen, places] += moved
        pull[chosen] += moved[:, None] * second[places]
    return codes
