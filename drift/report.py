"""The drift check as a file: JSON for machines, Markdown for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from ..core.errors import UsageError
from ..core.files import write_atomic
from .gate import Check, Verdict
from .metrics import Metrics

SUFFIXES: Final = (".json", ".md")
SCHEMA_VERSION: Final = 1
_FLIPS_SHOWN: Final = 50
_MEASURES: Final = {"top1_drop": "top-1 drop", "agreement": "top-1 agreement"}
_ESCAPES: Final = str.maketrans(
    {"|": r"\|", "`": r"\`", "<": "&lt;", "\n": " ", "\r": " ", "*": r"\*", "_": r"\_"}
)


class Skipped(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An image that was not compared."""

    image: str
    reason: str


class DriftReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that a drift check found.

    Attributes:
        reference: What was compared with, as the user named it.
        candidate: What was judged.
        backends: What ran each: "reference" and "candidate".
        truth: Where the ground truth comes from; None without.
        metrics: What was found.
        verdict: Whether it is within the budget.
        skipped: Images that could not be read, by name.
        labels: Class names by index, where known.
    """

    reference: str
    candidate: str
    backends: dict[str, str]
    truth: str | None
    metrics: Metrics
    verdict: Verdict
    skipped: tuple[Skipped, ...] = ()
    labels: tuple[str, ...] | None = None
    schema_version: int = SCHEMA_VERSION

    def to_dict(self) -> dict[str, object]:
        """Return plain values, with the percentages that the counts give."""
        found: dict[str, object] = msgspec.to_builtins(self)
        metrics = self.metrics
        found["summary"] = {
            "reference_top1": metrics.reference_top1,
            "candidate_top1": metrics.candidate_top1,
            "reference_top5": metrics.reference_top5,
            "candidate_top5": metrics.candidate_top5,
            "top1_drop": metrics.top1_drop,
            "agreement": metrics.agreement,
        }
        del found["labels"]
        return found

    def to_json(self) -> bytes:
        """Return the report as JSON, indented, ending with a newline; the same every time."""
        return msgspec.json.format(msgspec.json.encode(self.to_dict()), indent=2) + b"\n"

    def to_markdown(self) -> str:
        """Return the report as Markdown."""
        metrics = self.metrics
        lines = [
            f"# Drift: {self.verdict.outcome}",
            "",
            f"Candidate {_plain(self.candidate)} ({_plain(self.backends.get('candidate', '?'))}) "
            f"against reference {_plain(self.reference)} "
            f"({_plain(self.backends.get('reference', '?'))}), {metrics.images} images; "
            f"{_plain(self.truth or 'no ground truth')}.",
            "",
            *(_check_line(check) for check in self.verdict.checks),
            "",
            "Point estimates: what was measured on these images, without an interval.",
            "",
            *_table(
                ("", "reference", "candidate"),
                [
                    ("top-1", _percent(metrics.reference_top1), _percent(metrics.candidate_top1)),
                    ("top-5", _percent(metrics.reference_top5), _percent(metrics.candidate_top5)),
                ],
            ),
            "",
            f"Top-1 agreement {metrics.agreement:.2f} %. Logits differ by "
            f"{metrics.mean_logit_difference:.4g} on average and by "
            f"{metrics.max_logit_difference:.4g} at most, which is "
            f"{metrics.relative_difference:.4g} of the largest.",
            "",
            *self._flip_lines(),
        ]
        if self.skipped:
            rows = [(item.image, item.reason) for item in self.skipped]
            lines += ["", "## Images that could not be read", "", *_table(("image", "why"), rows)]
        return "\n".join(lines) + "\n"

    def write(self, path: Path) -> None:
        """Write the report in the form that the file's ending names.

        Raises:
            UsageError: Another ending.
            OSError: The file cannot be written.
        """
        check_report_path(path)
        as_json = path.suffix.lower() == ".json"
        write_atomic(path, self.to_json() if as_json else self.to_markdown().encode())

    def _flip_lines(self) -> list[str]:
        flips = self.metrics.flips
        if not flips:
            return ["No image changed its answer."]
        rows = [
            (
                flip.image,
                self._name(flip.truth),
                self._name(flip.reference),
                self._name(flip.candidate),
            )
            for flip in flips[:_FLIPS_SHOWN]
        ]
        lines = [f"## Images that changed their answer: {len(flips)}", ""]
        lines += _table(("image", "truth", "reference", "candidate"), rows)
        if len(flips) > _FLIPS_SHOWN:
            lines += ["", f"The first {_FLIPS_SHOWN}; the JSON report has all."]
        return lines

    def _name(self, index: int | None) -> str:
        if index is None:
            return "-"
        return str(index) if self.labels is None else f"{index} {self.labels[index]}"


def check_report_path(path: Path) -> None:
    """Raise UsageError where no report can be written in the form that ``path`` asks for."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"--report {path}: expected a name that ends in {' or '.join(SUFFIXES)}, "
            f"found {path.suffix or 'no ending'}"
        )


def _check_line(check: Check) -> str:
    unit, sign = ("points", "<=") if check.measure == "top1_drop" else ("%", ">=")
    result = "passed" if check.passed else "failed"
    return (
        f"- {_MEASURES[check.measure]} {check.value:.2f} {unit} "
        f"(limit {sign} {check.limit:g}): **{result}**"
    )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} %"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *([_plain(cell) for cell in row] for row in rows)]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def _plain(text: str) -> str:
    """Return text that Markdown shows as it is: names of files and classes come from anywhere."""
    return text.replace("\\", "\\\\").translate(_ESCAPES)
