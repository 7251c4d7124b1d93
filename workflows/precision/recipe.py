"""Repairs, each tried on the tuning images and kept only where it pays.

All of them change what every target is made from, the one float graph and the one table, so that
targets go on sharing scales and weights. What is better for one and worse for another is not kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

import msgspec
import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import numpy_helper

from ...calibration.observers import choose_range
from ...calibration.placement.layers import nodes_by_layer
from ...calibration.repair import (
    collect_moments,
    corrected_bias,
    equalized,
    operands,
    rounded,
)
from ...calibration.table import CalibrationTable
from ...core.preprocess import Preprocess
from ...core.progress import Progress
from ...core.ranges import DEFAULT_PERCENTILE, METHODS, Range
from ...core.values import CALIBRATED, Granularity, Precision, QuantScheme, Tensor
from ...data.images import ImageFile
from ...data.stream import stream_pixels
from ...drift.candidates import Record, measure_all
from ..calibrate import calibrate
from .judging import Judging, spread_out
from .resume import Results, key_of
from .source import Source

Repair = Literal["equalization", "range methods", "rounding", "bias correction"]

_SEEN: Final = 64  # calibration images that show what layers are fed
_JUDGES: Final = 64  # tuning images that choose a layer's range method


class Gain(msgspec.Struct, frozen=True, kw_only=True):
    """What a repair did under one scheme: SQNR of the logits in dB, every layer quantized.

    Attributes:
        targets: Which have the scheme.
        plain: Without any repair.
        alone: With this one alone.
        before: With those that were kept before it.
        after: With this one on top.
        verdict: Of the last two: whether the difference is shown.
    """

    targets: tuple[str, ...]
    plain: float
    alone: float
    before: float
    after: float
    verdict: Literal["better", "level", "worse"]


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """A repair that was tried.

    Attributes:
        repair: Its name.
        did: What it changed, in words; nothing where it found nothing to do.
        kept: Whether it is in the plan: better under a scheme and worse under none.
        gains: By scheme; empty where it changed nothing.
    """

    repair: Repair
    did: str
    kept: bool
    gains: tuple[Gain, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A plan as repairs change it, with the table that its ranges come from."""

    source: Source
    calibration: CalibrationTable


Applied: TypeAlias = "tuple[State, str]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Tries every repair.

    Attributes:
        images: Those that calibrated.
        size: (height, width) of the model's input.
        precision: A calibrated one.
        schemes: With the names of their targets.
        judging: The tuning images.
        seed: What chose the calibration images.
        results: Takes what is measured, and gives what it has.
        progress: Shows how far it is.
    """

    images: Sequence[ImageFile]
    size: tuple[int, int]
    precision: Precision
    schemes: Mapping[QuantScheme, tuple[str, ...]]
    judging: Judging
    seed: int
    results: Results
    progress: Progress

    @property
    def repairs(self) -> dict[Repair, Callable[[State], Applied]]:
        """Every repair, in the order in which they are tried."""
        return {
            "equalization": self._equalize,
            "range methods": self._choose_ranges,
            "rounding": self._round,
            "bias correction": self._correct_bias,
        }

    def __call__(self, first: State) -> tuple[Source, tuple[Tried, ...]]:
        """Return what pays, and what was tried.

        Raises:
            CalibrationError: None of the images can be read any more.
        """
        plain = self._records(first.source)
        state, before, tried = first, plain, []
        for name, repair in self.repairs.items():
            self.progress.step(f"try {name}")
            changed, did = repair(state)
            if not did:
                tried.append(Tried(repair=name, did="", kept=False, gains=()))
                continue
            after = self._records(changed.source)
            alone = after if state is first else self._records(repair(first)[0].source)
            gains = tuple(
                _gain(targets, *(side[scheme] for side in (plain, alone, before, after)))
                for scheme, targets in self.schemes.items()
            )
            verdicts = {gain.verdict for gain in gains}
            kept = "better" in verdicts and "worse" not in verdicts
            tried.append(Tried(repair=name, did=did, kept=kept, gains=gains))
            if kept:
                state, before = changed, after
        return state.source, tuple(tried)

    def _records(self, source: Source) -> dict[QuantScheme, Record]:
        return {scheme: self._record(source, scheme) for scheme in self.schemes}

    def _record(self, source: Source, scheme: QuantScheme) -> Record:
        key = f"{key_of(source, scheme)}/record"
        found = self.results.get(key, Record)
        if found is None:
            found = self.judging.record(self.judging.answer(source.quantize(scheme).model))
            self.results.put(key, found)
        return found

    @property
    def _granularity(self) -> Granularity:
        """Of the scales that repairs reckon with; what that does to each scheme is measured."""
        every = {scheme.weights for scheme in self.schemes}
        return every.pop() if len(every) == 1 else "per_channel"

    def _equalize(self, state: State) -> Applied:
        made, names = equalized(
            state.source.model, self._tensors(state.calibration.preprocess), self._granularity
        )
        if not names:
            return state, ""
        table = calibrate(
            made, self.images, preprocess=state.calibration.preprocess, size=self.size,
            method=state.calibration.method, seed=self.seed, progress=self.progress,
            percentile=state.calibration.percentile or DEFAULT_PERCENTILE,
        )  # fmt: skip
        source = Source(model=made, table=table.ranges(CALIBRATED[self.precision]))
        return State(
            source=source, calibration=table
        ), f"scaled channels behind {len(names)} layers"

    def _choose_ranges(self, state: State) -> Applied:
        """Give what each layer makes the method that adds least noise where it alone is int8."""
        if CALIBRATED[self.precision] == 16:  # methods weigh what is clipped against 8 bits
            return state, ""
        source, observers = state.source, state.calibration.observers()
        made_by = _made_by(source.model)
        ranges = {
            method: {
                name: choose_range(
                    observer, method, state.calibration.percentile or DEFAULT_PERCENTILE
                )
                for name, observer in observers.items()
            }
            for method in METHODS
        }
        names = [layer.name for layer in source.layers()]
        best = dict(source.table.ranges)
        changed = []
        prefix = f"{key_of(source, *self.schemes)}/range method"
        for layer in self.progress.track(names, "choosing range methods", len(names)):
            own: dict[str, dict[str, Range]] = {
                method: {n: ranges[method][n] for n in made_by.get(layer, ()) if n in best}
                for method in (state.calibration.method, *METHODS)
            }
            chosen = self.results.get(f"{prefix}/{layer}", str)
            if chosen is None:
                chosen = self._quietest(source, best, own, [n for n in names if n != layer])
                self.results.put(f"{prefix}/{layer}", chosen)
            if chosen != state.calibration.method:
                best |= own[chosen]
                changed.append(layer)
        if not changed:
            return state, ""
        table = msgspec.structs.replace(source.table, ranges=best)
        did = f"another method than {state.calibration.method} for {len(changed)} layers"
        return replace(state, source=replace(source, table=table)), did

    def _quietest(
        self,
        source: Source,
        best: Mapping[str, Range],
        own: Mapping[str, Mapping[str, Range]],
        others: Sequence[str],
    ) -> str:
        """Return the method whose ranges add least noise, all other layers in float."""
        few = self.judging.some(_JUDGES)
        noises: dict[str, float] = {}
        for method, ranges in own.items():
            if any(ranges == own[tried] for tried in noises):
                continue
            table = msgspec.structs.replace(source.table, ranges={**best, **ranges})
            trial = replace(source, table=table)
            noises[method] = sum(
                few.noise(few.answer(trial.quantize(scheme, others).model))
                for scheme in self.schemes
            )
        return min(noises, key=noises.__getitem__)

    def _round(self, state: State) -> Applied:
        source = state.source
        chosen = operands(source.model, source.table, self._granularity)
        moments = collect_moments(source.model, chosen, self._tensors(state.calibration.preprocess))
        arrays = _arrays(source.model)
        mended = {layer: dict(found) for layer, found in source.mended.items()}
        for layer, operand in chosen.items():
            matrix = rounded(operand, moments[layer])
            mended.setdefault(layer, {})[operand.weights] = operand.constant(
                matrix, arrays[operand.weights]
            )
        did = f"chose the rounding of {len(chosen)} layers' weights" if chosen else ""
        return replace(state, source=replace(source, mended=mended)), did

    def _correct_bias(self, state: State) -> Applied:
        source = state.source
        chosen = {
            layer: operand
            for layer, operand in operands(source.model, source.table, self._granularity).items()
            if operand.bias is not None
        }
        moments = collect_moments(source.model, chosen, self._tensors(state.calibration.preprocess))
        arrays = _arrays(source.model)
        mended = {layer: dict(found) for layer, found in source.mended.items()}
        for layer, operand in chosen.items():
            own = mended.setdefault(layer, {})
            weights = own.get(operand.weights, arrays[operand.weights])
            assert operand.bias is not None
            own[operand.bias] = corrected_bias(
                arrays[operand.bias], operand, operand.rows(weights), moments[layer]
            )
        did = f"corrected {len(chosen)} biases" if chosen else ""
        return replace(state, source=replace(source, mended=mended)), did

    def _tensors(self, preprocess: Preprocess) -> Iterator[Tensor]:
        seen = [self.images[place] for place in spread_out(len(self.images), _SEEN)]
        stream = stream_pixels(seen, preprocess, size=self.size)
        for batch in stream:
            for pixels in batch.pixels:
                yield preprocess.normalize(pixels[None])


def _gain(
    targets: tuple[str, ...], plain: Record, alone: Record, before: Record, after: Record
) -> Gain:
    found = measure_all({"before": before, "after": after, "plain": plain, "alone": alone},
                        "before", seed=0)  # fmt: skip
    sqnr = {name: values["sqnr_db"] for name, values in found.items()}
    return Gain(
        targets=targets,
        plain=sqnr["plain"].value,
        alone=sqnr["alone"].value,
        before=sqnr["before"].value,
        after=sqnr["after"].value,
        verdict=sqnr["after"].verdict or "level",
    )


def _made_by(model: onnx.ModelProto) -> dict[str, tuple[str, ...]]:
    """Return the names of the values that each layer makes; the image counts to the first."""
    graph = ir.from_proto(model).graph
    found = {
        layer: tuple(str(value.name) for node in nodes for value in node.outputs)
        for layer, nodes in nodes_by_layer(graph).items()
    }
    if found:
        first = next(iter(found))
        found[first] = (str(graph.inputs[0].name), *found[first])
    return found


def _arrays(model: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
