"""What was found, as files: for machines, for CI systems, for pull requests, for people."""

from .write import check_report_path, write_explanation, write_matrix, write_report

__all__ = ["check_report_path", "write_explanation", "write_matrix", "write_report"]
