"""Several candidates beside one of them on the same images: measures with paired intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeVar, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..core.values import Logits
from .answers import answers_of
from .divergence import Divergence, divergence, sqnr_db
from .interval import Interval, Reals, bootstrap_intervals, share_interval

Measure = Literal["agreement", "sqnr_db", "kl", "top1", "top5"]
"""Agreement with the reference, top-1 and top-5 in percent; SQNR of the logits in dB; the mean KL
divergence of the probabilities from the reference's in nats: the only one that is better smaller.
"""

Verdict = Literal["better", "level", "worse"]

MEASURES: Final[tuple[Measure, ...]] = get_args(Measure)

ALPHA: Final = 0.05

Flags = NDArray[np.bool_]
Name = TypeVar("Name", bound=str)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What each of N images contributes to the measures of one candidate.

    Attributes:
        shares: Whether the image counts for a measure that is a share, shape (N,) each.
        divergence: How far its logits are from the reference's.
    """

    shares: dict[Measure, Flags]
    divergence: Divergence


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """A measure of one candidate.

    Attributes:
        value: In the measure's unit; SQNR is infinite where there is no noise.
        difference: From the baseline, in the same unit, positive where this one's value is larger;
            None for the baseline itself.
        verdict: "level" where neither is shown better: the interval of the difference holds 0 or,
            of SQNR and KL, the signed-rank test finds chance enough.
    """

    value: float
    difference: Interval | None = None
    verdict: Verdict | None = None


def record(
    names: Sequence[str],
    reference: Logits,
    candidate: Logits,
    truth: NDArray[np.int64] | None = None,
) -> Record:
    """Reduce a batch's logits.

    Args:
        names: Of the images, N.
        reference: Shape (N, classes).
        candidate: Likewise.
        truth: Class indices, shape (N,), where they are known.

    Raises:
        CheckFailedError: A logit is NaN or infinite.
        DataError: The models differ in their number of classes, or a class has no output.
    """
    ours = answers_of(reference, truth, names=names, side="reference")
    theirs = answers_of(candidate, truth, names=names, side="candidate")
    shares: dict[Measure, Flags] = {"agreement": ours.top1 == theirs.top1}
    if truth is not None:
        assert theirs.in_top5 is not None
        shares |= {"top1": theirs.top1 == truth, "top5": theirs.in_top5}
    return Record(shares=shares, divergence=divergence(reference, candidate))


def join(parts: Sequence[Record]) -> Record:
    """Return the record of all parts' images."""
    every = [part.divergence for part in parts]
    return Record(
        shares={
            measure: np.concatenate([part.shares[measure] for part in parts])
            for measure in parts[0].shares
        },
        divergence=Divergence(
            signal=np.concatenate([one.signal for one in every]),
            noise=np.concatenate([one.noise for one in every]),
            kl=np.concatenate([one.kl for one in every]),
        ),
    )


def measure_all(
    records: Mapping[Name, Record], baseline: Name, *, seed: int
) -> dict[Name, dict[Measure, Measured]]:
    """Measure every candidate and compare each with the baseline.

    The level of each comparison is ``ALPHA`` over the number of candidates (Bonferroni): the more
    are tried, the more one must be ahead to be called better. Intervals of shares are exact. Those
    of SQNR and KL are a bootstrap's, too narrow where images are few or a few of them rule the
    mean; so a verdict of these also wants Wilcoxon's signed-rank test of the images' own
    differences (Biometrics Bulletin 1 (1945) 80-83), which holds for any number and any tail.

    Args:
        records: By name, of the same images in the same order; at least two images.
        baseline: The name of one of them.
        seed: Of the bootstrap.
    """
    first = records[baseline]
    others = [name for name in records if name != baseline]
    alpha = ALPHA / max(1, len(others))
    rows = [first, *(records[name] for name in others)]
    intervals = bootstrap_intervals(_columns(rows), _differences, alpha=alpha, seed=seed)
    found = {name: values_of(one) for name, one in records.items()}
    for index, name in enumerate(others):
        mine, theirs = records[name], found[name]
        for measure, flags in mine.shares.items():
            share = share_interval(flags, first.shares[measure], alpha)
            percent = Interval(
                difference=100 * share.difference, low=100 * share.low, high=100 * share.high
            )
            theirs[measure] = _judged(theirs[measure], percent, better="above")
        sqnr, kl = intervals[index], intervals[len(others) + index]
        noise = mine.divergence.noise - first.divergence.noise
        kls = mine.divergence.kl - first.divergence.kl
        theirs["sqnr_db"] = _judged(
            theirs["sqnr_db"], sqnr, better="above", shown=_sided(noise, alpha)
        )
        theirs["kl"] = _judged(theirs["kl"], kl, better="below", shown=_sided(kls, alpha))
    return found


def _columns(rows: Sequence[Record]) -> Reals:
    """Return shape (N, 3 * candidates): every signal, then every noise, then every KL."""
    every = [row.divergence for row in rows]
    return np.stack(
        [*(d.signal for d in every), *(d.noise for d in every), *(d.kl for d in every)], axis=1
    )


def _differences(means: Reals) -> Reals:
    """Return SQNR, then KL, of all candidates but the first, less the first's."""
    signal, noise, kl = np.split(means, 3, axis=-1)
    ratios = sqnr_db(signal, noise)
    with np.errstate(invalid="ignore"):
        sqnr = ratios[..., 1:] - ratios[..., :1]
    sqnr[np.isnan(sqnr)] = 0.0  # no noise on either side is no difference
    return np.concatenate([sqnr, kl[..., 1:] - kl[..., :1]], axis=-1)


def values_of(one: Record) -> dict[Measure, Measured]:
    """Return the measures of one candidate by itself, in the order of ``MEASURES``."""
    found: dict[Measure, Measured] = {
        measure: Measured(value=100 * float(flags.mean())) for measure, flags in one.shares.items()
    }
    means = (one.divergence.signal.mean(keepdims=True), one.divergence.noise.mean(keepdims=True))
    found["sqnr_db"] = Measured(value=float(sqnr_db(*means)[0]))
    found["kl"] = Measured(value=float(one.divergence.kl.mean()))
    return {measure: found[measure] for measure in MEASURES if measure in found}


def _sided(differences: Reals, alpha: float) -> Verdict:
    """Return what the signed-rank test shows of errors: "better" where they are smaller."""
    from scipy.stats import wilcoxon

    changed = differences[differences != 0]
    if not changed.size or wilcoxon(changed).pvalue > alpha:
        return "level"
    return "better" if np.median(changed) < 0 else "worse"


def _judged(
    measured: Measured,
    interval: Interval,
    *,
    better: Literal["above", "below"],
    shown: Verdict | None = None,
) -> Measured:
    verdict: Verdict = "level"
    if interval.side != "level":
        verdict = "better" if interval.side == better else "worse"
    if shown is not None and shown != verdict:
        verdict = "level"
    return Measured(value=measured.value, difference=interval, verdict=verdict)
