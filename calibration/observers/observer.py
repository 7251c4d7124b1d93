"""What every observer does."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ...core.ranges import Range


class Observer(Protocol):
    """Sees a tensor's values batch by batch; the order of the batches makes no difference."""

    def update(self, values: NDArray[np.float32]) -> None:
        """Take in values of any shape, all finite."""
        ...

    def range(self) -> Range:
        """Return the interval to keep, in the tensor's units."""
        ...
