"""The links of a chain while they are collected."""

from __future__ import annotations

from typing import Any

from ...core.files import sha256_file
from ...core.preprocess import Preprocess
from ...data.images import ImageFile
from ...drift.answers import Indices
from ...drift.explanation import LayerFinding, Stage
from .chain import Run, State, Swap
from .images import encoding
from .preprocessing import differences


class Links:
    """What is swapped, and what was found beside it.

    Attributes:
        images: The candidate's, N.
        files: Of each side; the reference's originals first, where there are any.
        runs: See ``Chain``; the reference's is the first.
        size: (height, width) of the model's input in px.
        start: The reference's whole pipeline.
        base: How many swaps lie before the first pipeline whose stages can be swapped.
        swaps: In the chain's order.
        same: Stages that do not differ.
        layers: Of the candidate's file.
        notes: For the user.
    """

    def __init__(
        self,
        *,
        images: tuple[ImageFile, ...],
        originals: tuple[ImageFile, ...] | None,
        preprocess: Preprocess,
    ) -> None:
        self.images = images
        self.files = (images,) if originals is None else (originals, images)
        self.runs: list[Run | Indices] = []
        self.size = (0, 0)
        self.start = State(files=0, preprocess=preprocess, run=0)
        self.base = 0
        self.swaps: list[Swap] = []
        self.same: list[Stage] = []
        self.layers: tuple[LayerFinding, ...] = ()
        self.notes: list[str] = []

    @property
    def originals(self) -> tuple[ImageFile, ...]:
        """The reference's images, N: its own files or the candidate's."""
        return self.files[0]

    def add(self, stage: Stage, expected: str, found: str, **changed: Any) -> None:
        """Add a swap; ``changed`` are its other fields."""
        self.swaps.append(Swap(stage=stage, expected=expected, found=found, **changed))

    def add_run(self, stage: Stage, expected: str, found: str, run: Run | Indices) -> None:
        """Add a swap of what computes."""
        self.runs.append(run)
        self.add(stage, expected, found, run=len(self.runs) - 1)

    def add_preprocessing(self, found: Preprocess) -> None:
        """Add the stages in which the candidate prepares images otherwise."""
        differing, same = differences(self.start.preprocess, found)
        self.same += same
        for difference in differing:
            self.add(
                difference.stage, difference.expected, difference.found, fields=difference.fields
            )

    def add_data(self) -> None:
        """Add the swap of the originals for the candidate's files, where they differ."""
        differing = sum(
            one.path != other.path and sha256_file(one.path) != sha256_file(other.path)
            for one, other in zip(self.originals, self.images, strict=True)
        )
        if not differing:
            self.same.append("data")
            return
        found = f"{encoding(self.images)}; {differing} of {len(self.images)} files differ"
        self.add("data", encoding(self.originals), found, files=len(self.files) - 1)
