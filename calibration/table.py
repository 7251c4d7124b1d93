"""The calibration table: a JSON file with every tensor's histogram and range, and where from.

It holds what the observers saw, so that parts made on several machines merge to the very table that
one machine would have made, and so that it can be plotted, compared and judged later.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
import numpy as np

from ..core.errors import CalibrationError
from ..core.fingerprint import Fingerprint
from ..core.preprocess import Preprocess
from ..core.ranges import DEFAULT_PERCENTILE, CalibrationMethod, Range, RangeTable
from .collect import Observations, data_hash
from .observers import Histogram, Observer, choose_range, method_for
from .observers.histogram import BINS

FORMAT: Final = "edgecls calibration table"
VERSION: Final = 1

Hash = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
# More values than any set of images has, and few enough for sums of 64 bits.
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 48)]

# Methods without sums of floats, which another version of numpy may round in another way.
_EXACT: Final = frozenset({"minmax", "percentile"})

_LARGEST: Final = float(np.finfo(np.float32).max)


class TensorRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One tensor.

    Attributes:
        range: What the method chose.
        extremes: The smallest and the largest value.
        exponent: log2 of the bins' width; None where every value was zero.
        first: Index of the first bin in ``counts``: bin i >= 0 counts [i, i + 1) widths, bin i < 0
            counts (i, i + 1] widths.
        counts: From the first to the last bin that is not empty.
    """

    range: Range
    extremes: Range
    exponent: Annotated[int, msgspec.Meta(ge=-126, le=128)] | None
    first: Annotated[int, msgspec.Meta(ge=-BINS, lt=BINS)]
    counts: Annotated[tuple[Count, ...], msgspec.Meta(min_length=1, max_length=2 * BINS)]

    def __post_init__(self) -> None:
        """Refuse what no observer has seen."""
        if self.first + len(self.counts) > BINS:
            raise ValueError(f"a histogram's last bin must lie below {BINS}")
        if not sum(self.counts):
            raise ValueError("a histogram counts no value")
        seen, chosen = self.extremes, self.range
        if not -_LARGEST <= seen.lo <= seen.hi <= _LARGEST:
            raise ValueError(f"extremes {seen.lo} to {seen.hi} are none of float32 values")
        if not min(seen.lo, 0.0) <= chosen.lo <= chosen.hi <= max(seen.hi, 0.0):
            raise ValueError(
                f"the range {chosen.lo} to {chosen.hi} lies outside of the values, {seen.lo} to "
                f"{seen.hi}"
            )

    def observer(self) -> Observer:
        """Return the observer that this was made from."""
        histogram = Histogram(exponent=self.exponent)
        start = BINS + self.first
        histogram.counts[start : start + len(self.counts)] = self.counts
        return Observer(self.extremes.lo, self.extremes.hi, histogram)

    def clipped(self) -> float:
        """Return the share of the counted values whose bins lie outside the range, 0..1."""
        histogram = self.observer().histogram
        centres = (histogram.edges[:-1] + histogram.edges[1:]) / 2
        outside = (centres < self.range.lo) | (centres > self.range.hi)
        outside &= (centres > self.extremes.lo) & (centres < self.extremes.hi)
        return float(histogram.counts[outside].sum() / histogram.counts.sum())


class Parts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which parts of a set of images a table holds, where it does not hold all.

    Attributes:
        of: How many there are.
        held: Which of them, counted from 1, ascending.
        chosen: Hash of the names of all images of the set, in their order.
    """

    of: Annotated[int, msgspec.Meta(ge=2)]
    held: Annotated[tuple[int, ...], msgspec.Meta(min_length=1)]
    chosen: Hash

    def __post_init__(self) -> None:
        """Refuse parts that there are not."""
        if list(self.held) != sorted({*self.held} & {*range(1, self.of + 1)}):
            raise ValueError(f"expected parts of 1 to {self.of}, each once, found {self.held}")
        if len(self.held) == self.of:
            raise ValueError("a table that holds all parts is no part")


class CalibrationTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one calibration measured, with its provenance.

    Attributes:
        model_sha256: Hash of the float graph that was observed.
        preprocess: What the images went through.
        size: (height, width) of the model's input in px.
        method: How the ranges were chosen.
        percentile: What the percentile method keeps, in percent; None for the other methods.
        seed: What chose the images.
        images: The SHA-256 of each image's file, sorted.
        parts: None where the table holds all that was chosen.
        tools: The versions that took part, by name.
        fingerprint: What the images looked like.
        tensors: By name, in the graph's order.
        learned: Ranges that training chose instead, for activations of 8 bits.
    """

    model_sha256: Hash
    preprocess: Preprocess
    size: tuple[int, int]
    method: CalibrationMethod
    percentile: Annotated[float, msgspec.Meta(ge=50, le=100)] | None
    seed: int
    images: Annotated[tuple[Hash, ...], msgspec.Meta(min_length=1)]
    parts: Parts | None
    tools: dict[str, tuple[str, ...]]
    fingerprint: Fingerprint
    tensors: Annotated[dict[str, TensorRecord], msgspec.Meta(min_length=1)]
    learned: dict[str, Range] = {}
    format: str = FORMAT
    version: int = VERSION

    def check_whole(self) -> None:
        """Refuse a table that contradicts itself: one that was edited, or cut.

        Raises:
            ValueError: It does.
        """
        if self.fingerprint.images != len(self.images):
            raise ValueError(
                f"the fingerprint is of {self.fingerprint.images} images, the table of "
                f"{len(self.images)}"
            )
        if (self.percentile is None) == (self.method == "percentile"):
            raise ValueError(f"the method {self.method} and the percentile {self.percentile}")
        strange = next((name for name in self.learned if name not in self.tensors), None)
        if strange is not None:
            raise ValueError(f"a learned range of {strange!r}, which is no tensor of the table")
        if self.method not in _EXACT:
            return
        for name, record in self.tensors.items():
            chosen = choose_range(
                record.observer(), self.method, self.percentile or DEFAULT_PERCENTILE
            )
            if chosen != record.range:
                raise ValueError(
                    f"the range of {name!r}, {record.range.lo} to {record.range.hi}, is not what "
                    f"{self.method} chooses from its histogram, {chosen.lo} to {chosen.hi}"
                )

    def ranges(self, activation_bits: int = 8) -> RangeTable:
        """Return what placement needs.

        Args:
            activation_bits: Of the scheme: 16 keep all that was seen where the table's method, or
                a training, chose for 8, see ``method_for``.

        Raises:
            CalibrationError: The table holds only a part of the images.
        """
        if self.parts is not None:
            raise CalibrationError(
                f"the calibration table holds only {self.parts_text()}; merge all of them first: "
                "edgecls calibrate merge PART... -o TABLE"
            )
        method = method_for(self.method, activation_bits)
        kept = method == self.method
        learned = self.learned if activation_bits == 8 else {}
        return RangeTable(
            ranges={
                name: record.range if kept else record.extremes
                for name, record in self.tensors.items()
            }
            | learned,
            model_sha256=self.model_sha256,
            data_sha256=data_hash(self.images),
            method=method,
            images=len(self.images),
            seed=self.seed,
            percentile=self.percentile,
            learned=len(learned),
        )

    def parts_text(self) -> str:
        """Return which parts are held, e.g. "part 1, 3 of 4"; "all" where none is missing."""
        if self.parts is None:
            return "all"
        return f"part {', '.join(map(str, self.parts.held))} of {self.parts.of}"

    def observers(self) -> dict[str, Observer]:
        """Return the observers of all tensors."""
        return {name: record.observer() for name, record in self.tensors.items()}

    def check(self, *, model_sha256: str, preprocess: Preprocess, size: tuple[int, int]) -> None:
        """Refuse another model, or images prepared in another way.

        Raises:
            CalibrationError: The table says nothing about this model's tensors.
        """
        if self.model_sha256 != model_sha256:
            raise CalibrationError(
                f"the calibration table was made for the graph {self.model_sha256[:16]}, this "
                f"model gives {model_sha256[:16]} (other weights, size or exporter); "
                "calibrate this model"
            )
        for what, expected, found in (
            ("preprocessing", self.preprocess, preprocess),
            ("image size (height, width)", self.size, size),
        ):
            if expected != found:
                raise CalibrationError(
                    f"the calibration table was made with another {what}: expected {expected}, "
                    f"found {found}; calibrate again"
                )


def make_table(
    seen: Observations,
    *,
    preprocess: Preprocess,
    size: tuple[int, int],
    method: CalibrationMethod,
    percentile: float | None,
    seed: int,
    parts: Parts | None,
    tools: dict[str, tuple[str, ...]],
    fingerprint: Fingerprint,
) -> CalibrationTable:
    """Return the table of what was seen; the arguments are the table's fields."""
    return CalibrationTable(
        model_sha256=seen.model_sha256,
        preprocess=preprocess,
        size=size,
        method=method,
        percentile=percentile,
        seed=seed,
        images=seen.images,
        parts=parts,
        tools=tools,
        fingerprint=fingerprint,
        tensors={
            name: _record(observer, method, percentile) for name, observer in seen.observers.items()
        },
    )


def _record(
    observer: Observer, method: CalibrationMethod, percentile: float | None
) -> TensorRecord:
    counts = observer.histogram.counts
    filled = np.flatnonzero(counts)
    return TensorRecord(
        range=choose_range(observer, method, percentile or DEFAULT_PERCENTILE),
        extremes=Range(observer.lo, observer.hi),
        exponent=observer.histogram.exponent,
        first=int(filled[0]) - BINS,
        counts=tuple(counts[filled[0] : filled[-1] + 1].tolist()),
    )


def merge_tables(one: CalibrationTable, other: CalibrationTable) -> CalibrationTable:
    """Return the table of the images of both: associative and commutative, to the last bit.

    Raises:
        CalibrationError: They do not belong together, or an image would count twice.
    """
    for what, mine, theirs in (
        ("model", one.model_sha256, other.model_sha256),
        ("preprocessing", one.preprocess, other.preprocess),
        ("image size", one.size, other.size),
        ("method", (one.method, one.percentile), (other.method, other.percentile)),
        ("seed", one.seed, other.seed),
        ("set of tensors", set(one.tensors), set(other.tensors)),
    ):
        if mine != theirs:
            raise CalibrationError(
                f"the tables cannot be merged: another {what} ({_short(mine)} and "
                f"{_short(theirs)}); calibrate both with the same"
            )
    if one.learned or other.learned:
        raise CalibrationError(
            "a table with learned ranges cannot be merged: they belong to one training; merge "
            "tables of edgecls calibrate"
        )
    observers = {
        name: observer.merge(other.tensors[name].observer())
        for name, observer in one.observers().items()
    }
    try:
        fingerprint = one.fingerprint.merge(other.fingerprint)
    except ValueError as error:
        raise CalibrationError("the tables' fingerprints have another number of classes") from error
    return make_table(
        Observations(
            observers=observers,
            images=tuple(sorted(one.images + other.images)),
            model_sha256=one.model_sha256,
        ),
        preprocess=one.preprocess,
        size=one.size,
        method=one.method,
        percentile=one.percentile,
        seed=one.seed,
        parts=_joined(one, other),
        tools={
            name: tuple(sorted({*one.tools.get(name, ()), *other.tools.get(name, ())}))
            for name in sorted({*one.tools, *other.tools})
        },
        fingerprint=fingerprint,
    )


def _joined(one: CalibrationTable, other: CalibrationTable) -> Parts | None:
    if one.parts is None or other.parts is None:
        twice = sorted(set(one.images) & set(other.images))
        if one.parts is not None or other.parts is not None:
            raise CalibrationError(
                f"a part and a whole table cannot be merged ({one.parts_text()} and "
                f"{other.parts_text()}); merge the parts first"
            )
        if twice:
            raise CalibrationError(
                f"{len(twice)} images are in both tables and would count twice, e.g. the one with "
                f"sha256 {twice[0][:16]}; calibrate one of the tables without them"
            )
        return None
    if one.parts.chosen != other.parts.chosen:
        raise CalibrationError(
            f"expected parts of one set of images, found {one.parts_text()} and "
            f"{other.parts_text()} of other images (another folder or number of images); observe "
            "every part with the same --data, --images and --seed"
        )
    if one.parts.of != other.parts.of or set(one.parts.held) & set(other.parts.held):
        raise CalibrationError(
            f"expected different parts of one set, found {one.parts_text()} and "
            f"{other.parts_text()}"
        )
    held = tuple(sorted(one.parts.held + other.parts.held))
    if len(held) == one.parts.of:
        return None
    return Parts(of=one.parts.of, held=held, chosen=one.parts.chosen)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
