"""The drift check as a file: JSON for machines, Markdown for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

from ..core.errors import UsageError
from ..core.files import write_atomic
from .gate import Verdict
from .histogram import Distribution
from .metrics import Metrics
from .paired import mcnemar
from .proportion import wilson

SUFFIXES: Final = (".json", ".md")
SCHEMA_VERSION: Final = 1
QUANTILES: Final = (0.5, 0.9, 0.99, 0.999)


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
        verdict: Whether it is within the budgets.
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

    def summary(self) -> dict[str, Any]:
        """Return what the counts give: percent and points, None where there is no ground truth.

        ``agreement_interval`` is Wilson's, two-sided, 95 %; ``mcnemar_p`` is exact, two-sided.
        """
        metrics, graded = self.metrics, self.metrics.graded
        interval = [100 * bound for bound in wilson(metrics.agreed, metrics.images)]
        found: dict[str, Any] = {
            "reference_top1": graded and graded.top1.reference,
            "candidate_top1": graded and graded.top1.candidate,
            "top1_drop": graded and graded.top1.drop,
            "reference_top5": graded and graded.top5.reference,
            "candidate_top5": graded and graded.top5.candidate,
            "top5_drop": graded and graded.top5.drop,
            "reference_ece": graded and 100 * graded.reliability.reference_ece,
            "candidate_ece": graded and 100 * graded.reliability.candidate_ece,
            "mcnemar_p": graded and mcnemar(graded.top1.paired),
            "agreement": metrics.agreement,
            "agreement_interval": interval,
            "images_needed": self.verdict.images_needed,
        }
        if metrics.differences is not None:
            found["logit_difference"] = quantiles(metrics.differences.logits)
            found["probability_difference"] = quantiles(metrics.differences.probabilities)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, with the summary."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        found["summary"] = self.summary()
        del found["labels"]
        if self.metrics.graded is not None:
            del found["metrics"]["graded"]["reliability"]["moments"]
        return found

    def to_json(self) -> bytes:
        """Return the report as JSON, indented, ending with a newline; the same every time."""
        return msgspec.json.format(msgspec.json.encode(self.to_dict()), indent=2) + b"\n"

    def write(self, path: Path) -> None:
        """Write the report in the form that the file's ending names.

        Raises:
            UsageError: Another ending.
            OSError: The file cannot be written.
        """
        from .markdown import to_markdown

        check_report_path(path)
        as_json = path.suffix.lower() == ".json"
        write_atomic(path, self.to_json() if as_json else to_markdown(self).encode())


def quantiles(found: Distribution) -> dict[str, float]:
    """Return the quantiles that reports show, by percent: "50", "90", "99", "99.9"."""
    return {f"{100 * share:g}": found.quantile(share) for share in QUANTILES}


def check_report_path(path: Path) -> None:
    """Raise UsageError where no report can be written in the form that ``path`` asks for."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"--report {path}: expected a name that ends in {' or '.join(SUFFIXES)}, "
            f"found {path.suffix or 'no ending'}"
        )
