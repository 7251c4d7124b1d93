"""What a conversion may cost, and how sure a verdict must be."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from ..core.errors import UsageError

Measure = Literal["top1_drop", "top5_drop", "agreement", "class_drop", "ece_rise"]

DEFAULT_DROP: Final = 1.0
_MOST_LOOKS: Final = 10
# The exact tests spend 1e-6 of every level on the rate of changed answers: a level near it, or
# below, would leave nothing, and no number of images would do.
_LEAST_ALPHA: Final = 0.99e-5
_NEED_TRUTH: Final = ("max_drop", "max_top5_drop", "max_class_drop", "max_ece_rise")


class Budgets(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits in percentage points; None is not judged.

    Attributes:
        max_drop: Of top-1; 1.0 where there is ground truth and nothing else is said.
        max_top5_drop: Of top-5.
        min_agreement: Of the top-1 answers, in percent of the images.
        max_class_drop: Of the top-1 of any class.
        max_ece_rise: Of the expected calibration error.
        confidence: Of a verdict, in percent: one that is wrongly "passed", or wrongly "failed",
            comes up in at most 100 - ``confidence`` of 100 checks.
        looks: How often the same model may be judged on growing data; they share the risk.
    """

    max_drop: float | None = None
    max_top5_drop: float | None = None
    min_agreement: float | None = None
    max_class_drop: float | None = None
    max_ece_rise: float | None = None
    confidence: float = 95.0
    looks: int = 1

    @property
    def alpha(self) -> float:
        """The risk of a wrong verdict in one look."""
        return (1 - self.confidence / 100) / self.looks

    @property
    def judged(self) -> tuple[str, ...]:
        """The names of the limits that are set."""
        return tuple(
            name for name in (*_NEED_TRUTH, "min_agreement") if getattr(self, name) is not None
        )

    def checked(self, *, has_truth: bool, classes: int | None = None) -> Budgets:
        """Return the budgets as they are judged, before any image is run.

        Args:
            has_truth: Whether there is ground truth.
            classes: The models' outputs, where known.

        Raises:
            UsageError: A limit is out of range or cannot be judged, or there is none.
        """
        self.check()
        if not has_truth:
            for name in _NEED_TRUTH:
                if getattr(self, name) is not None:
                    raise UsageError(
                        f"{option(name)} needs ground truth, and there is none; give --truth FILE, "
                        "sort the images into class folders, or judge by --min-agreement alone"
                    )
            if self.min_agreement is None:
                raise UsageError(
                    "without ground truth the top-1 drop cannot be known; give --truth FILE, sort "
                    "the images into class folders, or gate on agreement with "
                    "--min-agreement PERCENT"
                )
            return self
        if self.max_top5_drop is not None and classes is not None and classes <= 5:
            raise UsageError(
                f"--max-top5-drop: with {classes} classes every answer is among the five best; "
                "leave it out"
            )
        if self.max_drop is None:
            return msgspec.structs.replace(self, max_drop=DEFAULT_DROP)
        return self

    def check(self) -> None:
        """Raise UsageError where a limit is out of range."""
        for name in _NEED_TRUTH:
            limit = getattr(self, name)
            if limit is not None and not 0 < limit < 100:
                raise UsageError(
                    f"{option(name)} must lie above 0 and below 100 points, found {limit:g}; no "
                    "number of images shows that nothing at all was lost, and no model can lose "
                    "more than 100 points"
                )
        if self.min_agreement is not None and not 0 < self.min_agreement < 100:
            raise UsageError(
                f"--min-agreement must lie above 0 and below 100 percent, found "
                f"{self.min_agreement:g}; every conversion keeps 0, and no number of images shows "
                "that all images agree"
            )
        if not 50 < self.confidence < 100:
            raise UsageError(
                f"--confidence must lie between 50 and 100 percent, found {self.confidence:g}"
            )
        if not 1 <= self.looks <= _MOST_LOOKS:
            raise UsageError(f"--looks must lie in 1..{_MOST_LOOKS}, found {self.looks}")
        if self.alpha < _LEAST_ALPHA:
            raise UsageError(
                "a look's risk must lie at 1e-5 or above, the tests resolve none below; found "
                f"{self.alpha:.2g} of --confidence {self.confidence:.12g} and {self.looks} looks; "
                f"give --confidence {100 - 1e-3 * self.looks:g} or less"
            )


def option(name: str) -> str:
    """Return a limit's option on the command line."""
    return "--" + name.replace("_", "-")
