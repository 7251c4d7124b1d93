"""How far logits are from a reference's, image by image: the power of the noise, and KL divergence.

They tell two candidates apart long before an answer changes: every image counts, not only those on
the border between two classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..core.errors import DataError
from ..core.values import Logits

Reals = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """Of each of N images.

    Attributes:
        signal: The sum of the reference's squared logits, shape (N,).
        noise: The sum of (reference - candidate)**2 over the logits, shape (N,).
        kl: KL(reference || candidate) of the probabilities in nats, shape (N,).
    """

    signal: Reals
    noise: Reals
    kl: Reals


def divergence(reference: Logits, candidate: Logits) -> Divergence:
    """Compare the logits of the same images, in float64.

    Args:
        reference: Shape (N, classes), finite.
        candidate: Likewise.

    Raises:
        DataError: The shapes differ.
    """
    if reference.ndim != 2 or reference.shape != candidate.shape:
        raise DataError(
            "expected logits (images, classes) of both models for the same images and classes, "
            f"found {reference.shape} and {candidate.shape}"
        )
    expected, found = reference.astype(np.float64), candidate.astype(np.float64)
    log_p, log_q = _log_softmax(expected), _log_softmax(found)
    return Divergence(
        signal=(expected**2).sum(1),
        noise=((expected - found) ** 2).sum(1),
        # Rounding alone would make a divergence of nothing negative.
        kl=np.maximum((np.exp(log_p) * (log_p - log_q)).sum(1), 0.0),
    )


def sqnr_db(signal: Reals, noise: Reals) -> Reals:
    """Return the signal-to-quantization-noise ratio in dB, elementwise; infinite without noise.

    Args:
        signal: Powers, any shape: of an image, or sums or means over many.
        noise: The same shape.
    """
    with np.errstate(divide="ignore"):
        found: Reals = 10 * np.log10(np.divide(signal, noise))
    return found


def _log_softmax(logits: Reals) -> Reals:
    shifted = logits - logits.max(axis=1, keepdims=True)
    found: Reals = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return found
