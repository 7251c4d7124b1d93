"""What was found, as files: for machines, for CI systems, for pull requests, for people."""

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
    "write_certificate",
    "write_explanation",
    "write_matrix",
    "write_report",
]
