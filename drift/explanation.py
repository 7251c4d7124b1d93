"""Where a drop comes from: what each stage costs, and which layers depart first."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from .paired import Paired, lower_bound, upper_bound

SCHEMA_VERSION: Final = 1
CONFIDENCE: Final = 0.95

Stage = Literal[
    "data", "orientation", "channel order", "resize and crop", "interpolation", "normalisation",
    "torch to ONNX", "simplification", "quantization", "lowering", "file", "backend", "model",
    "label map",
]  # fmt: skip
"""In the order in which an image meets them.

- file: the artefact that ships, against the one that the reference gives today: its scales, codes
  and weights.
- model: everything from the pixels to the logits, where the reference cannot be run here.
"""


class Cost(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a change cost on the same images.

    Attributes:
        lost: Images whose answer was right before it only.
        gained: Images whose answer is right after it only.
        images: All that were compared.
        points: 100 * (lost - gained) / images.
        lower: Of the two-sided 95 % interval of the true cost, in points.
        upper: Likewise.
    """

    lost: int
    gained: int
    images: int
    points: float
    lower: float
    upper: float

    @property
    def shown(self) -> bool:
        """Whether the data show a cost: the interval lies above zero."""
        return self.lower > 0


def cost_of(counts: Paired) -> Cost:
    """Return a cost with its exact interval, from the counts of two pipelines' right answers."""
    alpha = (1 - CONFIDENCE) / 2
    return Cost(
        lost=counts.lost,
        gained=counts.gained,
        images=counts.images,
        points=100 * counts.drop,
        lower=100 * lower_bound(counts, alpha, counts.drop),
        upper=100 * upper_bound(counts, alpha, counts.drop),
    )


class StageFinding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A stage in which the candidate differs from the reference.

    Attributes:
        stage: Its name.
        expected: What the reference has there, for humans.
        found: What the candidate has there.
        cost: Of this stage's change, the stages before it changed already: the costs of all stages
            add up to the whole drop.
        alone: Of this stage's change with no other one; None where the reference cannot be run.
            A stage behind a grave fault finds little left to lose, and is seen here.
    """

    stage: Stage
    expected: str
    found: str
    cost: Cost
    alone: Cost | None = None

    @property
    def own(self) -> Cost:
        """What it costs for itself: alone where that is known, else in the chain."""
        return self.cost if self.alone is None else self.alone

    def sentence(self) -> str:
        """Return e.g. "channel order: expected RGB, found BGR: costs 31.2 points [28.0, 34.5]"."""
        cost = self.cost
        text = (
            f"{self.stage}: expected {self.expected}, found {self.found}: "
            f"costs {cost.points:.1f} points [{cost.lower:.1f}, {cost.upper:.1f}]"
        )
        alone = self.alone
        if alone is None or (alone.lost, alone.gained) == (cost.lost, cost.gained):
            return text
        return f"{text}, alone {alone.points:.1f} [{alone.lower:.1f}, {alone.upper:.1f}]"


class LayerFinding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A layer of the candidate's file, fed with the float model's values instead of its own.

    Errors are root mean squares of the difference from the float model's values, relative to the
    root mean square of these, so that what the layers before it did wrong is not in them.

    Attributes:
        name: Of its output in the ONNX graph.
        operator: What computes it.
        error: Of its output.
        inputs_error: Of its worst input: what the file's codes cannot say of it.
        planned_error: Of its output in the file that the reference gives today.
        scale: Of its output in the file, in units per code; None where it is float.
        planned_scale: In the file that the reference gives today.
        departs: Whether it adds an error that neither its inputs nor the plan explain.
    """

    name: str
    operator: str
    error: float
    inputs_error: float
    planned_error: float
    scale: float | None
    planned_scale: float | None
    departs: bool


class Explanation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What became of a reference's right answers on the way to a candidate.

    Attributes:
        reference: As the user named it.
        candidate: Likewise.
        measure: "top1" where there is ground truth; else "agreement": the reference's answers are
            taken for the right ones.
        images: How many were compared.
        reference_percent: The reference's top-1, in percent; 100 where the measure is agreement.
        candidate_percent: The candidate's top-1, or its agreement with the reference.
        total: The whole drop.
        stages: Where the two differ, in the order of the chain.
        same: The stages in which they do not differ.
        layers: Of the candidate's file: those that depart, in the graph's order; where none does,
            those that add the largest errors.
        notes: What could not be compared, and how it could.
        left_out: Images that some pipeline could not take.
    """

    reference: str
    candidate: str
    measure: Literal["top1", "agreement"]
    images: int
    reference_percent: float
    candidate_percent: float
    total: Cost
    stages: tuple[StageFinding, ...]
    same: tuple[Stage, ...]
    layers: tuple[LayerFinding, ...] = ()
    notes: tuple[str, ...] = ()
    left_out: int = 0
    schema_version: int = SCHEMA_VERSION

    @property
    def blamed(self) -> tuple[StageFinding, ...]:
        """The stages of which the data show that they cost something, the most costly first.

        A stage counts by its own cost: behind another's fault an honest stage may lose answers that
        had become close. Only where none costs anything for itself do the costs in the chain count.
        """
        found = [stage for stage in self.stages if stage.own.shown]
        if found:
            return tuple(sorted(found, key=lambda stage: -stage.own.points))
        found = [stage for stage in self.stages if stage.cost.shown]
        return tuple(sorted(found, key=lambda stage: -stage.cost.points))

    def to_json(self) -> bytes:
        """Return the explanation as JSON, indented, ending with a newline."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"
