"""What a conversion cost: metrics of two models on the same images, the gate, the report."""

from .gate import Check, Verdict, judge
from .metrics import Comparison, Flip, Metrics, compare
from .report import DriftReport, Skipped

__all__ = [
    "Check",
    "Comparison",
    "DriftReport",
    "Flip",
    "Metrics",
    "Skipped",
    "Verdict",
    "compare",
    "judge",
]
