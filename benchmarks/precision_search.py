"""What int8 costs, what each repair wins back, and what a mixed plan leaves float.

    EDGECLS_DATA=... python benchmarks/precision_search.py --cache DIR --results FILE.jsonl

Nets: inverted residuals with SiLU and squeeze-and-excite, and a vision transformer, both trained
here on the 5,000 CIFAR images; these, and inverted residuals with ReLU, with channels scaled apart,
which compute what they did; CIFAR ResNet-20 and EfficientNet-Lite0 with one scale for all weights
of a tensor, as old hardware has it. A seed trains and splits anew. 100 training images calibrate,
half of the test images tune, the other half judge (of the 500 photos: 100, 100 and 300). All is
computed on the simulation.

A cell is a net, its weights' scales and a seed. Each is a line of the results; what is there is not
computed again, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgspec
from common import machine, one_of, table
from precision_search_nets import NETS, Prepared, prepare

from edgecls.core.progress import Quiet
from edgecls.core.values import Granularity, QuantScheme
from edgecls.drift.candidates import Record, measure_all
from edgecls.drift.interval import Interval, share_interval
from edgecls.targets import TARGETS, Target
from edgecls.workflows.precision.recipe import Recipe
from edgecls.workflows.precision.resume import Results, identity
from edgecls.workflows.precision.source import Source
from edgecls.workflows.precision.tune import TuneOptions, plan_layers

REPAIRS: Final = ("equalization", "range methods", "rounding", "bias correction")
KEPT: Final = "what pays"


def main() -> None:
    """Compute the cells that are not there, and print all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="Keeps images and weights.")
    parser.add_argument("--results", type=Path, required=True, help="Gets a line for each cell.")
    parser.add_argument("--nets", type=one_of(*NETS), nargs="+", default=list(NETS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--max-drop", type=float, default=1.0)
    parser.add_argument("--quick", action="store_true",
                        help="Without range methods, the recipe and its plan.")  # fmt: skip
    parser.add_argument("--target", type=one_of(*TARGETS), default="raspberry-pi")
    asked = parser.parse_args()
    asked.cache = asked.cache.resolve()
    asked.cache.mkdir(parents=True, exist_ok=True)
    for name, granularity, seed in cells(asked.nets, asked.seeds):
        key = {
            "net": name, "weights": granularity, "seed": seed, "epochs": asked.epochs,
            "target": asked.target, "max_drop": asked.max_drop,
        }  # fmt: skip
        if any(row["cell"] == key for row in read(asked.results)):
            continue
        print(f"{name}, {granularity}, seed {seed}", file=sys.stderr, flush=True)
        start = time.perf_counter()
        prepared = prepare(name, seed, asked.cache, asked.epochs)
        row = {"cell": key, **measure(prepared, target_of(asked.target, granularity), asked, seed)}
        row["seconds"] = time.perf_counter() - start
        with asked.results.open("a") as file:
            file.write(json.dumps(row) + "\n")
    print(f"{machine()}\n")
    print(report(read(asked.results)))


def cells(nets: list[str], seeds: list[int]) -> Iterator[tuple[str, Granularity, int]]:
    """Yield the cells: every net with one seed, then with the next."""
    for seed in seeds:
        for name in nets:
            for granularity in NETS[name].granularities:
                yield name, granularity, seed


def read(path: Path) -> list[dict[str, Any]]:
    """Return the cells of a file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def target_of(name: str, granularity: Granularity) -> Target:
    """Return a target with other weights' scales."""
    target = TARGETS[name]
    return replace(target, scheme=msgspec.structs.replace(target.scheme, weights=granularity))


def measure(
    prepared: Prepared, target: Target, asked: argparse.Namespace, seed: int
) -> dict[str, Any]:
    """Return one cell: every repair alone, what the recipe keeps, and both mixed plans."""
    scheme, first, judged = target.scheme, prepared.first, prepared.judged
    results = Results(None, identity(first.source, prepared.tune))
    recipe = Recipe(
        images=prepared.calibrating, size=prepared.size, precision="int8", judging=prepared.tune,
        schemes={scheme: (target.name,)}, seed=seed, results=results, progress=Quiet(),
    )  # fmt: skip
    records = {"plain": answered(prepared, first.source, scheme)}
    repaired, tried, seconds = first.source, (), 0.0
    if not asked.quick:
        start = time.perf_counter()
        repaired, tried = recipe(first)
        seconds = time.perf_counter() - start
    nothing = []
    for name, repair in recipe.repairs.items():
        if asked.quick and name == "range methods":
            continue
        changed, did = repair(first)
        if did:
            records[name] = answered(prepared, changed.source, scheme)
        else:
            nothing.append(name)
    if not asked.quick:
        records[KEPT] = answered(prepared, repaired, scheme)
    found = measure_all(records, "plain", seed=0)
    right = judged.expected.argmax(1) == judged.truth
    ways = {}
    for name, record in records.items():
        lost = share_interval(right, record.shares["top1"], 0.05)
        ways[name] = {
            "lost": scaled(lost, 100),
            "sqnr_db": found[name]["sqnr_db"].value,
            "gain": None if name == "plain" else {
                measure: numbers(found[name][measure].difference) for measure in ("top1", "sqnr_db")
            },
        }  # fmt: skip
    plans = {"plain": planned(prepared, first.source, target, asked.max_drop)}
    if not asked.quick:
        plans["repaired"] = planned(prepared, repaired, target, asked.max_drop)
    return {
        "float_top1": 100 * judged.float_right / len(judged.names),
        "tuned": len(prepared.tune.names), "judged": len(judged.names), "ways": ways,
        "nothing_to_do": nothing, "kept": [one.repair for one in tried if one.kept],
        "recipe_seconds": seconds, "plans": plans,
    }  # fmt: skip


def answered(
    prepared: Prepared, source: Source, scheme: QuantScheme, left: tuple[str, ...] = ()
) -> Record:
    """Return what a conversion answers on the images that decided nothing."""
    judged = prepared.judged
    return judged.record(judged.answer(source.quantize(scheme, left).model))


def planned(prepared: Prepared, source: Source, target: Target, max_drop: float) -> dict[str, Any]:
    """Search a plan within the budget, and judge it."""
    tune, judged, scheme = prepared.tune, prepared.judged, target.scheme
    start = time.perf_counter()
    found = plan_layers(
        source, tune, TuneOptions(data=Path(), max_drop=max_drop), {scheme: [target]}, "int8",
        Results(None, {}), Quiet(),
    )[scheme]  # fmt: skip
    seconds = time.perf_counter() - start
    record = answered(prepared, source, scheme, found.chosen.left)
    right = judged.expected.argmax(1) == judged.truth
    return {
        "seconds": seconds, "reached": found.reached, "tried": found.tried,
        "left": len(found.chosen.left), "layers": len(source.layers()),
        "float_macs": found.chosen.float_macs, "estimate": found.chosen.drop,
        "lost": scaled(share_interval(right, record.shares["top1"], 0.05), 100),
        "latency": None if found.latency is None else {
            "chosen": found.latency.of(found.chosen), "plain": found.latency.plain,
            "float32": found.latency.float32,
        },
    }  # fmt: skip


def scaled(interval: Interval, factor: float) -> list[float]:
    """Return a difference and its bounds in another unit."""
    return [factor * value for value in (interval.difference, interval.low, interval.high)]


def numbers(interval: Interval | None) -> list[float]:
    """Return a difference and its bounds."""
    assert interval is not None
    return scaled(interval, 1)


def report(rows: list[dict[str, Any]]) -> str:
    """Return three tables: points of top-1, SQNR, and the mixed plans."""
    header = ("net", "weights", "seed", "float32")
    points, noise, plans = [], [], []
    for row in sorted(rows, key=in_order):
        cell, ways = row["cell"], row["ways"]
        names = [cell["net"], cell["weights"].replace("_", " "), str(cell["seed"]),
                 f"{row['float_top1']:.1f} %"]  # fmt: skip
        gains: dict[str, list[str]] = {"top1": [], "sqnr_db": []}
        for way in (*REPAIRS, KEPT):
            for kind, cells_of in gains.items():
                digits = 1 if kind == "top1" else 2
                cells_of.append(shown(ways[way]["gain"][kind], digits) if way in ways else "")
        points.append([*names, shown(ways["plain"]["lost"], 1), *gains["top1"]])
        noise.append([*names[:3], f"{ways['plain']['sqnr_db']:.1f} dB", *gains["sqnr_db"]])
        for kind, plan in row["plans"].items():
            first = kind == "plain"
            plans.append([
                *(names[:3] if first else ["", "", ""]), kind,
                f"{plan['left']} of {plan['layers']} ({100 * plan['left'] / plan['layers']:.0f} %)",
                f"{plan['float_macs']:.0f} %",
                f"{plan['estimate']:.1f}{'' if plan['reached'] else ' missed'}",
                shown(plan["lost"], 1), times(plan["latency"]),
                f"{plan['seconds']:.0f} s ({plan['tried']})",
                f"{row['recipe_seconds']:.0f} s" if not first else "",
            ])  # fmt: skip
    return "\n\n".join([
        table([*header, "int8 loses", *REPAIRS, KEPT], points),
        table([*header[:3], "int8", *REPAIRS, KEPT], noise),
        table([*header[:3], "of", "layers left float", "MACs", "estimate", "loses", "latency",
               "search (graphs)", "recipe"], plans),
    ])  # fmt: skip


def in_order(row: dict[str, Any]) -> tuple[int, str, int]:
    """Sort cells by their net, as they are tried."""
    cell = row["cell"]
    return list(NETS).index(cell["net"]), cell["weights"], cell["seed"]


def shown(interval: list[float], digits: int) -> str:
    """Return a difference with its bounds."""
    value, low, high = (0.0 + round(number, digits) for number in interval)
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def times(latency: dict[str, float] | None) -> str:
    """Return a mixed file's time between those of all in int8 and all in float32."""
    if latency is None:
        return ""
    return f"{latency['plain']:.2f} / {latency['chosen']:.2f} / {latency['float32']:.2f} ms"


if __name__ == "__main__":
    main()
