"""What a conversion cost: metrics of two models on the same images, the gate, the report."""

from .answers import Answers, answers_of
from .budgets import Budgets
from .flips import Flip
from .gate import Check, Verdict, judge
from .metrics import Comparison, Metrics, add_logits, compare
from .report import DriftReport, Skipped

__all__ = [
    "Answers",
    "Budgets",
    "Check",
    "Comparison",
    "DriftReport",
    "Flip",
    "Metrics",
    "Skipped",
    "Verdict",
    "add_logits",
    "answers_of",
    "compare",
    "judge",
]
