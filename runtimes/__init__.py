"""Running a bundle: one preprocessing, one backend per file, one ``Predictor`` for all."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .prediction import Prediction
    from .predictor import Predictor, load

__all__ = ["Prediction", "Predictor", "load"]


def __getattr__(name: str) -> object:
    """Import numpy and Pillow only when something of them is asked for."""
    if name == "Prediction":
        from .prediction import Prediction

        return Prediction
    if name in {"Predictor", "load"}:
        from . import predictor

        return getattr(predictor, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
