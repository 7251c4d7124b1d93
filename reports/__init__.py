"""What was found, as files: for machines, for CI systems, for pull requests, for people."""

from .confusion_plot import plot_confusion
from .evaluation import write_evaluation
from .write import (
    check_certificate_path,
    check_report_path,
    write_certificate,
    write_explanation,
    write_matrix,
    write_report,
)

__all__ = [
    "check_certificate_path",
    "check_report_path",
    "plot_confusion",
    "write_certificate",
    "write_evaluation",
    "write_explanation",
    "write_matrix",
    "write_report",
]
