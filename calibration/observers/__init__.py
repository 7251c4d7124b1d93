"""Observers: what one tensor's values were over all images, in memory that does not grow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ...core.ranges import CalibrationMethod
from .entropy import EntropyObserver
from .minmax import MinMaxObserver
from .observer import Observer

OBSERVERS: Final[dict[CalibrationMethod, Callable[[], Observer]]] = {
    "minmax": MinMaxObserver,
    "entropy": EntropyObserver,
}

__all__ = ["OBSERVERS", "EntropyObserver", "MinMaxObserver", "Observer"]
