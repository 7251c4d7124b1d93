"""A chain of pipelines from the reference to the candidate, each answering to the same images."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from ...core.errors import CheckFailedError, DataError
from ...core.preprocess import Preprocess
from ...core.progress import Progress
from ...core.values import Logits, Pixels
from ...data.images import ImageFile
from ...data.stream import Batch, stream_pixels
from ...drift.answers import Indices
from ...drift.explanation import Stage
from ...drift.paired import Paired

Run: TypeAlias = "Callable[[Pixels, Preprocess], Logits]"
"""Pixels (N, H, W, C) and what normalises them; logits (N, classes)."""

_BATCH: Final = 8
_View: TypeAlias = "tuple[object, ...]"
UNKNOWN: Final = -1
"""The class of an answer that was not recorded, or whose name the reference does not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A pipeline, some of whose stages are the reference's and some the candidate's.

    Attributes:
        files: Which files it reads; an index of the chain's.
        preprocess: What it makes of them.
        run: What computes; an index of the chain's.
        relabelled: Whether an output means what the candidate calls it.
    """

    files: int
    preprocess: Preprocess
    run: int
    relabelled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """A stage that is swapped: the state's fields that become the candidate's.

    Attributes:
        stage: Which.
        expected: What the reference has there, for humans.
        found: What the candidate has.
        fields: Of the preprocessing.
        files, run, relabelled: Of the state; None where they stay.
    """

    stage: Stage
    expected: str
    found: str
    fields: dict[str, Any] | None = None
    files: int | None = None
    run: int | None = None
    relabelled: bool | None = None

    def __call__(self, state: State) -> State:
        """Return the state after it."""
        changed = {
            name: value
            for name in ("files", "run", "relabelled")
            if (value := getattr(self, name)) is not None
        }
        if self.fields is not None:
            changed["preprocess"] = msgspec.structs.replace(state.preprocess, **self.fields)
        return replace(state, **changed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """What answers to what.

    Attributes:
        files: Of each side, N images in one order; the same object where both are the same.
        runs: What computes, or the classes that were recorded, shape (N,) int64.
        size: (height, width) of the model's input in px.
        meaning: By output of the candidate, the reference's output of the same name, or
            ``UNKNOWN``.
    """

    files: tuple[tuple[ImageFile, ...], ...]
    runs: tuple[Run | Indices, ...]
    size: tuple[int, int]
    meaning: Indices

    def answers(
        self, states: Sequence[State], progress: Progress
    ) -> tuple[dict[State, Indices], NDArray[np.bool_], dict[str, str]]:
        """Run every state on every image.

        Returns:
            The class that each state answers, (N,); which images all states could take, (N,); and
            why the others could not be taken, by name.

        Raises:
            DataError: There is no image that all could take.
            CheckFailedError: A logit is NaN or infinite.
        """
        count = len(self.files[0])
        found = {state: np.full(count, UNKNOWN, np.int64) for state in states}
        taken = np.ones(count, np.bool_)
        reasons: dict[str, str] = {}
        for state, answers in found.items():
            recorded = self.runs[state.run]
            if not callable(recorded):
                answers[:] = recorded
                taken &= recorded != UNKNOWN
                reasons |= {
                    self.files[state.files][place].name: "was not recorded"
                    for place in np.flatnonzero(recorded == UNKNOWN)
                }
        live = [state for state in states if callable(self.runs[state.run])]
        total = -(-count // _BATCH)
        for start, seen in progress.track(self._seen(live, reasons), "explaining", total):
            stop = min(start + _BATCH, count)
            readable = set.intersection(*(set(rows) for rows in seen.values()))
            taken[start:stop] &= [place in readable for place in range(start, stop)]
            places = start + np.flatnonzero(taken[start:stop])
            if not len(places):
                continue
            pixels = {
                view: np.stack([rows[place] for place in places.tolist()])
                for view, rows in seen.items()
            }
            known: dict[tuple[int, Preprocess, int], Indices] = {}
            for state in live:
                key = (state.files, state.preprocess, state.run)
                if key not in known:
                    run = self.runs[state.run]
                    assert callable(run)
                    logits = run(pixels[_view(state)], state.preprocess)
                    known[key] = _top1(logits, self.files[state.files], places)
                found[state][places] = known[key]
        for state, answers in found.items():
            if state.relabelled:
                found[state] = np.where(answers == UNKNOWN, UNKNOWN, self.meaning[answers])
        if not taken.any():
            raise DataError(
                f"none of {count} images can be compared, e.g. {next(iter(reasons.items()))}"
            )
        return found, taken, reasons

    def _seen(
        self, live: Sequence[State], reasons: dict[str, str]
    ) -> Iterator[tuple[int, dict[_View, dict[int, Pixels]]]]:
        """Yield a batch's first place and, by view, the pixels (H, W, C) of its places."""
        views = {_view(state): state for state in live}
        if not views:
            return
        with ExitStack() as stack:
            streams = [
                stack.enter_context(closing(self._stream(state))) for state in views.values()
            ]
            for index, batches in enumerate(zip(*streams, strict=True)):
                start = index * _BATCH
                seen: dict[_View, dict[int, Pixels]] = {}
                for (view, state), batch in zip(views.items(), batches, strict=True):
                    failed = {image.name: error.reason for image, error in batch.errors}
                    reasons.update(failed)
                    pixels = iter(batch.pixels)
                    seen[view] = {
                        start + offset: next(pixels)
                        for offset, image in enumerate(
                            self.files[state.files][start : start + _BATCH]
                        )
                        if image.name not in failed
                    }
                yield start, seen

    def _stream(self, state: State) -> Generator[Batch, None, None]:
        size = None if state.preprocess.output_size else self.size
        return stream_pixels(self.files[state.files], state.preprocess, size=size, batch=_BATCH)


def paired(right_before: NDArray[np.bool_], right_after: NDArray[np.bool_]) -> Paired:
    """Return the counts of answers that became wrong and right, from shape (N,) each."""
    return Paired(
        int((right_before & ~right_after).sum()),
        int((~right_before & right_after).sum()),
        len(right_before),
    )


def _view(state: State) -> _View:
    """Return what decides a state's pixels: all but the normalisation."""
    p = state.preprocess
    pixels = (p.color, p.resize, p.crop, p.interpolation, p.antialias, p.exif, p.draft)
    return (state.files, *pixels)


def _top1(logits: Logits, files: Sequence[ImageFile], places: NDArray[np.intp]) -> Indices:
    bad = np.flatnonzero(~np.isfinite(logits).all(1))
    if len(bad):
        raise CheckFailedError(
            f"a pipeline's logits of {files[places[bad[0]]].name!r} hold NaN or infinity; nothing "
            "can be explained"
        )
    found: Indices = logits.argmax(1)
    return found
