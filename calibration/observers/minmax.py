"""The smallest and the largest value."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...core.ranges import Range


class MinMaxObserver:
    """Keeps everything: nothing is clipped on the calibration images."""

    def __init__(self) -> None:
        self.lo = float("inf")
        self.hi = float("-inf")

    def update(self, values: NDArray[np.float32]) -> None:
        """Take in values of any shape, all finite."""
        self.lo = min(self.lo, float(values.min()))
        self.hi = max(self.hi, float(values.max()))

    def range(self) -> Range:
        """Return (smallest, largest)."""
        return Range(self.lo, self.hi)
