"""The drift check as a value: what was compared, what was found, and the verdict."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ..core.preprocess import Preprocess
from ..core.text import as_utf8
from ..core.version import VERSION
from .gate import Verdict
from .histogram import Distribution
from .metrics import Metrics
from .paired import mcnemar
from .proportion import wilson

SCHEMA_VERSION: Final = 1
QUANTILES: Final = (0.5, 0.9, 0.99, 0.999)


class Skipped(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An image that was not compared."""

    image: str
    reason: str


class Provenance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a report's numbers come from, beside the two models.

    Attributes:
        preprocess: What the candidate's images went through.
        data: The folder of images, as the user named it; None where both sides were recorded.
        seed: Chose the images where not all were taken.
        edgecls: Its version.
    """

    preprocess: Preprocess
    data: str | None
    seed: int
    edgecls: str = VERSION


class Latency(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long one side takes for one image's pixels, in ms, on the machine of the comparison."""

    images: int
    median_ms: float
    p90_ms: float


class Summary(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the counts give: percent and points, None where there is no ground truth.

    Attributes:
        reference_top1: The reference's top-1 accuracy.
        candidate_top1: The candidate's.
        top1_drop: The first less the second.
        reference_top5: The reference's top-5 accuracy.
        candidate_top5: The candidate's.
        top5_drop: The first less the second.
        reference_ece: The reference's expected calibration error.
        candidate_ece: The candidate's.
        mcnemar_p: Exact, two-sided.
        agreement: Images with the same top-1 answer.
        agreement_interval: Wilson's, two-sided, 95 %.
        images_needed: How many would decide; None where nothing is open or none is known.
        logit_difference: Quantiles by percent ("50", "90", "99", "99.9"); None without logits.
        probability_difference: Likewise.
    """

    reference_top1: float | None
    candidate_top1: float | None
    top1_drop: float | None
    reference_top5: float | None
    candidate_top5: float | None
    top5_drop: float | None
    reference_ece: float | None
    candidate_ece: float | None
    mcnemar_p: float | None
    agreement: float
    agreement_interval: tuple[float, float]
    images_needed: int | None
    logit_difference: dict[str, float] | None
    probability_difference: dict[str, float] | None


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
        labels: Class names by index, where known; left out of JSON.
        provenance: What the numbers come from.
        latency: By "reference" and "candidate", of those that were timed; None where none was.
    """

    reference: str
    candidate: str
    backends: dict[str, str]
    truth: str | None
    metrics: Metrics
    verdict: Verdict
    skipped: tuple[Skipped, ...] = ()
    labels: tuple[str, ...] | None = None
    provenance: Provenance | None = None
    latency: dict[str, Latency] | None = None
    schema_version: int = SCHEMA_VERSION

    @property
    def exit_code(self) -> int:
        """The verdict's; 4 where it passed, but not on all the images that were given.

        A gate that passed without some of the images has not passed on the data that was given.
        """
        return self.verdict.exit_code or (4 if self.skipped else 0)

    def summary(self) -> Summary:
        """Return what the counts give."""
        metrics, graded, differences = self.metrics, self.metrics.graded, self.metrics.differences
        low, high = wilson(metrics.agreed, metrics.images)
        return Summary(
            reference_top1=graded.top1.reference if graded else None,
            candidate_top1=graded.top1.candidate if graded else None,
            top1_drop=graded.top1.drop if graded else None,
            reference_top5=graded.top5.reference if graded else None,
            candidate_top5=graded.top5.candidate if graded else None,
            top5_drop=graded.top5.drop if graded else None,
            reference_ece=100 * graded.reliability.reference_ece if graded else None,
            candidate_ece=100 * graded.reliability.candidate_ece if graded else None,
            mcnemar_p=mcnemar(graded.top1.paired) if graded else None,
            agreement=metrics.agreement,
            agreement_interval=(100 * low, 100 * high),
            images_needed=self.verdict.images_needed,
            logit_difference=quantiles(differences.logits) if differences else None,
            probability_difference=quantiles(differences.probabilities) if differences else None,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, with the summary: what ``Document`` describes."""
        named = msgspec.structs.replace(
            self, reference=as_utf8(self.reference), candidate=as_utf8(self.candidate)
        )
        found: dict[str, Any] = msgspec.to_builtins(named)
        found["summary"] = msgspec.to_builtins(self.summary())
        del found["labels"]
        if self.metrics.graded is not None:
            del found["metrics"]["graded"]["reliability"]["moments"]
        return found

    def to_json(self) -> bytes:
        """Return the report as JSON, indented, ending with a newline; the same every time."""
        return msgspec.json.format(msgspec.json.encode(self.to_dict()), indent=2) + b"\n"


class Document(DriftReport, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The JSON report: a drift check, and what its counts give.

    Attributes:
        summary: What the counts give.
    """

    numbers: Summary = msgspec.field(name="summary")


def quantiles(found: Distribution) -> dict[str, float]:
    """Return the quantiles that reports show, by percent: "50", "90", "99", "99.9"."""
    return {f"{100 * share:g}": found.quantile(share) for share in QUANTILES}
