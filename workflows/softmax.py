"""Outputs that went through a softmax, and logits made comparable with them."""

from __future__ import annotations

import numpy as np

from ..core.values import Logits


def is_probabilities(outputs: Logits) -> bool:
    """Return whether every row, shape (N, classes), is what a softmax gives."""
    return bool((outputs >= 0).all() and np.allclose(outputs.sum(axis=1), 1.0, atol=1e-3))


def log_softmax(logits: Logits) -> Logits:
    """Return log-probabilities (N, classes), computed in float64."""
    wide = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    found: Logits = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
    return found.astype(np.float32)
