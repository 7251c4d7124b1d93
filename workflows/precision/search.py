"""Which layers to leave float so that the top-1 drop on the tuning images is within a budget.

Layers are ranked by the noise that each adds alone; the shortest beginning of that list that is
within the budget is found by bisection; then its layers are quantized again one after the other,
those with the most work first, wherever the budget still holds. Each step is measured on the whole
graph, so nothing rests on noises adding up. The same is done with the noise per work as the rank,
which finds many small layers where the first finds few large ones: both results are candidates.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from ...calibration.placement import Layer
from ...core.progress import Progress
from ...core.values import QuantScheme
from .judging import Judging
from .resume import Results, key_of
from .sensitivity import LayerCost, measure_scheme
from .source import Source

_NOISELESS: Final = 0.0


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A set of layers that are left float.

    Attributes:
        left: Their names, in the graph's order.
        drop: Points of top-1 lost on the tuning images: an estimate, on the simulation.
        float_macs: The share of the network's multiply-accumulates that they have, in percent.
    """

    left: tuple[str, ...]
    drop: float
    float_macs: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search found.

    Attributes:
        plain: Every layer quantized.
        candidates: Within the budget, the least work in float first; empty where there is none.
        best: The first of them; without any, the one with the smallest drop.
        costs: What each layer costs alone, the noisiest first; empty where nothing was searched.
        tried: How many graphs were measured as a whole.
    """

    plain: Candidate
    candidates: tuple[Candidate, ...]
    best: Candidate
    costs: tuple[LayerCost, ...]
    tried: int


def search(
    source: Source,
    scheme: QuantScheme,
    judging: Judging,
    results: Results,
    *,
    max_drop: float,
    max_float: float,
    progress: Progress,
) -> Found:
    """Return sets of layers that keep the drop on the judging images within ``max_drop``.

    Args:
        source: What is quantized.
        scheme: How.
        judging: The tuning images.
        results: Takes what is measured, and gives what it has.
        max_drop: In points.
        max_float: The largest share of the work that may be left float, in percent; at least one
            layer is always quantized.
        progress: Shows how far it is.
    """
    trial = _Trial(source, scheme, judging, results)
    plain = trial(())
    if plain.drop <= max_drop:
        return Found(plain=plain, candidates=(plain,), best=plain, costs=(), tried=1)
    costs = measure_scheme(source, scheme, judging, results, progress).layers
    progress.step("looking for layers to leave float")
    found: dict[tuple[str, ...], Candidate] = {}
    for ranked in (costs, sorted(costs, key=_noise_per_work, reverse=True)):
        candidate = _bisect(trial, _fitting(ranked, trial, max_float), max_drop)
        if candidate is not None:
            candidate = _give_back(trial, candidate, max_drop)
            found[candidate.left] = candidate
    candidates = tuple(sorted(found.values(), key=lambda one: (one.float_macs, one.drop)))
    tried = trial.every
    return Found(
        plain=plain,
        candidates=candidates,
        best=candidates[0] if candidates else min(tried, key=lambda c: (c.drop, c.float_macs)),
        costs=costs,
        tried=len(tried),
    )


class _Trial:
    """Measures sets of layers that are left float, each once."""

    def __init__(
        self, source: Source, scheme: QuantScheme, judging: Judging, results: Results
    ) -> None:
        self.layers: dict[str, Layer] = {layer.name: layer for layer in source.layers()}
        self._source = source
        self._scheme = scheme
        self._judging = judging
        self._results = results
        self._key = key_of(source, scheme)
        self._known: dict[tuple[str, ...], Candidate] = {}

    @property
    def every(self) -> tuple[Candidate, ...]:
        """All that were measured."""
        return tuple(self._known.values())

    def share(self, names: Collection[str]) -> float:
        """Return the layers' share of the work, in percent."""
        total = sum(layer.macs for layer in self.layers.values())
        return 100 * sum(self.layers[name].macs for name in names) / max(total, 1)

    def __call__(self, names: Collection[str]) -> Candidate:
        """Return what leaving these layers float gives."""
        left = tuple(name for name in self.layers if name in names)
        if left not in self._known:
            key = f"{self._key}/left/{' '.join(left)}"
            drop = self._results.get(key, float)
            if drop is None:
                quantized = self._source.quantize(self._scheme, left)
                drop = self._judging.drop(self._judging.answer(quantized.model))
                self._results.put(key, drop)
            self._known[left] = Candidate(left=left, drop=drop, float_macs=self.share(left))
        return self._known[left]


def _fitting(ranked: Sequence[LayerCost], trial: _Trial, max_float: float) -> list[str]:
    """Return the ranked layers that may be left float together; one at least is not."""
    chosen: list[str] = []
    for layer in ranked:
        if len(chosen) < len(ranked) - 1 and trial.share([*chosen, layer.name]) <= max_float:
            chosen.append(layer.name)
    return chosen


def _bisect(trial: _Trial, ranked: Sequence[str], max_drop: float) -> Candidate | None:
    """Return the shortest beginning within the budget, as far as bisection sees; None for none.

    Drops need not fall with every layer; what is returned was measured itself.
    """
    best = trial(ranked)
    if best.drop > max_drop:
        return None
    too_few, enough = 0, len(ranked)
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        candidate = trial(ranked[:middle])
        if candidate.drop <= max_drop:
            best, enough = candidate, middle
        else:
            too_few = middle
    return best


def _give_back(trial: _Trial, candidate: Candidate, max_drop: float) -> Candidate:
    """Quantize each layer again that the budget does not need, those with the most work first."""
    for name in sorted(candidate.left, key=lambda name: -trial.layers[name].macs):
        fewer = trial([other for other in candidate.left if other != name])
        if fewer.drop <= max_drop:
            candidate = fewer
    return candidate


def _noise_per_work(layer: LayerCost) -> float:
    sqnr = layer.cost.sqnr_db
    return (_NOISELESS if sqnr is None else 10.0 ** (-sqnr / 10)) / max(layer.macs, 1)
