"""What a prediction is."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np

from ..core.errors import BundleError
from ..core.values import Logits


class Ranked(msgspec.Struct, frozen=True):
    """A class with its probability.

    Attributes:
        index: The model's output, from 0.
        label: Its name; the index as text where the bundle has no labels.
        score: Softmax probability, 0..1.
    """

    index: int
    label: str
    score: float


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """What a model says about an image.

    Attributes:
        image: The path, or "image" for what came as bytes, array or Pillow image.
        topk: The best classes, the best first; of equal scores the lower index.
        speed_ms: Milliseconds by stage: decode, preprocess, inference, postprocess. In a batch,
            inference is the batch's time divided by its images.
        logits: The model's outputs, where they were asked for.
    """

    image: str
    topk: tuple[Ranked, ...]
    speed_ms: dict[str, float]
    logits: tuple[float, ...] | None = None

    @property
    def top1(self) -> Ranked:
        """The best class."""
        return self.topk[0]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form that ``predict --json`` prints."""
        found: dict[str, Any] = {
            "image": self.image,
            "topk": [msgspec.structs.asdict(ranked) for ranked in self.topk],
            "speed_ms": {stage: round(value, 3) for stage, value in self.speed_ms.items()},
        }
        if self.logits is not None:
            found["logits"] = list(self.logits)
        return found


def rank(logits: Logits, labels: tuple[str, ...] | None, topk: int) -> tuple[Ranked, ...]:
    """Return the ``topk`` best classes of one image's logits, shape (classes,).

    More than there are classes gives all of them; probabilities are computed in float64.

    Raises:
        BundleError: The logits hold a NaN or an infinity.
    """
    best = float(logits.max())
    if not math.isfinite(best):
        raise BundleError(
            "the model's logits hold a NaN or an infinity; where it runs in fp16, export it in fp32"
        )
    powers = np.exp(np.subtract(logits, best, dtype=np.float64))
    total = float(powers.sum())
    topk = min(topk, len(logits))
    least = np.partition(logits, -topk)[-topk]
    candidates = np.flatnonzero(logits >= least).tolist()  # of a thousand, these few are sorted
    candidates.sort(key=lambda index: -float(logits[index]))
    return tuple(
        Ranked(
            index=index,
            label=labels[index] if labels else str(index),
            score=float(powers[index]) / total,
        )
        for index in candidates[:topk]
    )
