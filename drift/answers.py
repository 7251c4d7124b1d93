"""What a model answered to a batch, reduced to what the metrics need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..core.errors import CheckFailedError, DataError
from ..core.values import Logits

TOP: Final = 5
# Confidences are counted in hundred-thousandths, so that sums over images are exact in any order.
CONFIDENCE_ONE: Final = 100_000

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Of one model, for N images.

    Attributes:
        top1: Class indices, shape (N,); of equal logits the lowest index.
        in_top5: Whether the true class is among the five best, shape (N,); None without truth.
        confidence: The softmax probability of ``top1`` in units of 1 / ``CONFIDENCE_ONE``, (N,).
        logits: Shape (N, classes); None where only the answers were kept.
    """

    top1: Indices
    in_top5: NDArray[np.bool_] | None
    confidence: Indices
    logits: Logits | None = None


def answers_of(
    logits: Logits,
    truth: Sequence[int] | NDArray[np.integer] | None = None,
    *,
    names: Sequence[str],
    side: str = "model",
) -> Answers:
    """Reduce a batch's logits.

    Args:
        logits: Shape (N, classes).
        truth: Class indices, N, where they are known.
        names: Of the images, N.
        side: What messages call the model.

    Raises:
        CheckFailedError: A logit is NaN or infinite; the message names the image.
        DataError: A class index has no output.
        ValueError: The arguments do not belong together.
    """
    if logits.ndim != 2 or len(names) != len(logits):
        raise ValueError(f"expected {len(names)} rows of logits, found shape {logits.shape}")
    if truth is not None and len(truth) != len(names):
        raise ValueError(f"expected {len(names)} class indices, found {len(truth)}")
    bad = np.flatnonzero(~np.isfinite(logits).all(1))
    if len(bad):
        raise CheckFailedError(
            f"the {side}'s logits of {names[bad[0]]!r} hold NaN or infinity; "
            "nothing can be compared"
        )
    classes = logits.shape[1]
    for name, index in zip(names, () if truth is None else truth, strict=False):
        if not 0 <= index < classes:
            raise DataError(f"{name}: class index {index}, the models have {classes} outputs")
    # Each image alone: no batch size changes a digit.
    shares = [1 / float(powers(row).sum()) for row in logits]
    return Answers(
        top1=logits.argmax(1),
        in_top5=None if truth is None else _ranks(logits, np.asarray(truth, np.int64)) < TOP,
        confidence=np.asarray([round(share * CONFIDENCE_ONE) for share in shares], np.int64),
        logits=logits,
    )


def powers(row: Logits) -> NDArray[np.float64]:
    """Return exp(row - max(row)), shape (classes,): the softmax before its division."""
    found: NDArray[np.float64] = np.exp(np.subtract(row, row.max(), dtype=np.float64))
    return found


def _ranks(logits: Logits, right: Indices) -> Indices:
    """Return how many classes stand before the right one; of equals the lower index is first."""
    own = np.take_along_axis(logits, right[:, None], 1)
    before = np.arange(logits.shape[1])[None] < right[:, None]
    ranks: Indices = ((logits > own) | ((logits == own) & before)).sum(1)
    return ranks
