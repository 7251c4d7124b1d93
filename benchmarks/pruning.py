"""CIFAR ResNets pruned by each method to the same measured latency, and brought back.

    EDGECLS_DATA=... OMP_NUM_THREADS=1 python benchmarks/pruning.py --results FILE.json
        [--depth 20] [--goal 0.75 --goal 0.6] [--epochs 4] [--seeds 3] [--images 5000] [METHOD ...]
    python benchmarks/pruning.py --results FILE.json --report [--plot FILE.png]

Each cell (depth, goal, method, seed) is one `edgecls prune` on CIFAR-10's 5,000 images, a tenth of
which chooses the epoch; 1,000 other images judge what it wrote. A cell that the results have is not
run again, so that the whole can be run in parts; the settings are part of a cell. Methods that set
single weights to zero cannot reach a latency: they get as many zeros as the goal says, and their
row shows what that gains. Intervals: of a speed-up 95 % as `edgecls prune` measures it; of top-1
Wilson's 95 % at the mean over seeds (what other images would say), beside the lowest and highest
seed (what another seed would).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any, cast

from common import (
    cifar_folder,
    data_folder,
    edgecls,
    keep_images,
    machine,
    one_of,
    table,
    work_folder,
)

from edgecls.core.files import write_atomic
from edgecls.drift.proportion import wilson

STRUCTURED = ("--method", "structured")
METHODS: dict[str, tuple[str, ...]] = {
    "magnitude": STRUCTURED,
    "taylor": (*STRUCTURED, "--importance", "taylor"),
    "activation": (*STRUCTURED, "--importance", "activation"),
    "ranked": (*STRUCTURED, "--allotment", "ranked"),
    "in-steps": (*STRUCTURED, "--steps", "4"),
    "soft": ("--method", "soft"),
    "global": ("--method", "global"),
    "layer": ("--method", "layer"),
    "2:4": ("--method", "2:4"),
}
ZEROS = ("global", "layer", "2:4")
Cell = dict[str, Any]


def main() -> None:
    """Run the cells that are missing, or print the table of those that are there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--depth", type=int, default=20, choices=(20, 32, 56))
    parser.add_argument("--goal", type=float, action="append", help="Default: 0.75.")
    parser.add_argument("--epochs", type=int, default=4, help="In all, shared by the steps.")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("method", nargs="*", type=one_of(*METHODS))
    chosen = parser.parse_args()
    cells = json.loads(chosen.results.read_text()) if chosen.results.exists() else []
    if not chosen.report:
        run(chosen, cells)
    print(f"\n{machine()}\n")
    print(report(cells))
    if chosen.plot is not None:
        plot(cells, chosen.plot)


def run(chosen: argparse.Namespace, cells: list[Cell]) -> None:
    """Run what is missing; the results are written after each cell."""
    data = data_folder()
    weights = next((data / "weights").glob(f"resnet{chosen.depth}-*.th"))
    done = {key_of(cell) for cell in cells}
    with work_folder() as folder:
        work = Path(folder)
        learned = cifar_folder(data, "dev_train5000", work)
        judged = cifar_folder(data, "dev_test1000", work)
        keep_images(learned, chosen.images)
        for goal in chosen.goal or [0.75]:
            for seed in range(chosen.seeds):
                for method in chosen.method or METHODS:
                    cell: Cell = {
                        "depth": chosen.depth, "goal": goal, "method": method, "seed": seed,
                        "epochs": chosen.epochs, "images": chosen.images,
                    }  # fmt: skip
                    if key_of(cell) in done:
                        continue
                    out = work / f"{method.replace(':', '-')}-{goal}-{seed}"
                    cell |= prune(cell, weights, learned, judged, out)
                    cells.append(cell)
                    write_atomic(chosen.results, json.dumps(cells, indent=1).encode())
                    print(json.dumps(cell), flush=True)


def key_of(cell: Cell) -> tuple[Any, ...]:
    """Return what makes a cell the same."""
    return tuple(cell[name] for name in ("depth", "goal", "method", "seed", "epochs", "images"))


def prune(cell: Cell, weights: Path, learned: Path, judged: Path, out: Path) -> Cell:
    """Prune once, and judge the result on images that chose nothing."""
    method = cell["method"]
    if method == "2:4":
        until: tuple[object, ...] = ()
    else:
        quantity = "params" if method in ZEROS else "latency"
        until = ("--until", f"{quantity}={cell['goal']:g}x")
    steps = 4 if method == "in-steps" else 1
    found = edgecls(
        "prune", f"cifar_resnet{cell['depth']}", "--weights", weights, "--data", learned,
        "--epochs", max(1, cell["epochs"] // steps), "--seed", cell["seed"], "--threads", 1,
        *METHODS[method], *until, "-o", out, codes=(0, 1),
    )  # fmt: skip
    document = cast("dict[str, Any]", found.found)
    first, *_, last = document["steps"]
    answers = edgecls("evaluate", document["out"], "--data", judged).found
    return {
        "reached": document["reached"],
        "parameters": last["nonzero"] / first["nonzero"],
        "macs": last["macs"] / first["macs"],
        "size": last["size_bytes"] / first["size_bytes"],
        "predicted": last["predicted_speedup"],
        "speedup": [last["speedup"], last["speedup_low"], last["speedup_high"]],
        "top1": answers["top1"],
        "judged": answers["images"],
        "seconds": found.seconds,
    }


def grouped(cells: Sequence[Cell]) -> dict[tuple[Any, ...], list[Cell]]:
    """Return the seeds of each setting together."""
    groups: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in sorted(cells, key=lambda cell: (cell["depth"], -cell["goal"])):
        key = (cell["depth"], cell["goal"], cell["method"], cell["epochs"], cell["images"])
        groups.setdefault(key, []).append(cell)
    return groups


def top1_of(seeds: Sequence[Cell]) -> tuple[float, float, float]:
    """Return the mean over seeds with Wilson's interval on the images that judged, percent."""
    value, images = mean(cell["top1"] for cell in seeds), int(seeds[0]["judged"])
    low, high = wilson(round(value * images / 100), images)
    return value, 100 * low, 100 * high


def report(cells: Sequence[Cell]) -> str:
    """Return a row for each setting."""
    rows = []
    for (depth, goal, method, epochs, images), seeds in grouped(cells).items():
        value, low, high = top1_of(seeds)
        tops = [cell["top1"] for cell in seeds]
        measured = [cell["speedup"] for cell in seeds if cell["speedup"][0] is not None]
        speed = "-"
        if measured:
            speed = (
                f"{median(m[0] for m in measured):.2f}x "
                f"({min(m[1] for m in measured):.2f}..{max(m[2] for m in measured):.2f})"
            )
        rows.append(
            [
                f"ResNet-{depth}, {method}",
                f"{goal:g}x",
                f"{100 * mean(cell['parameters'] for cell in seeds):.0f} %",
                f"{100 * mean(cell['size'] for cell in seeds):.0f} %",
                f"{mean(cell['predicted'] for cell in seeds):.2f}x",
                speed,
                f"{value:.1f} %",
                f"{low:.1f}..{high:.1f}",
                f"{min(tops):.1f}..{max(tops):.1f}",
                f"{sum(cell['reached'] for cell in seeds)} of {len(seeds)}",
                f"{epochs} x {images:,}",
            ]
        )
    header = ["", "goal", "not zero", "file", "predicted", "measured", "top-1", "95 %", "seeds",
              "reached", "epochs x images"]  # fmt: skip
    return table(header, rows)


def plot(cells: Sequence[Cell], file: Path) -> None:
    """Draw top-1 against the measured latency, a curve for each method, side by side by depth."""
    from matplotlib.figure import Figure

    depths = sorted({cell["depth"] for cell in cells})
    figure = Figure(figsize=(5.6 * len(depths), 4.2), layout="constrained")
    for axis, depth in zip(figure.subplots(1, len(depths), squeeze=False)[0], depths, strict=True):
        for method in METHODS:
            points = []
            for (found, _, name, _, _), seeds in grouped(cells).items():
                timed = [1 / cell["speedup"][0] for cell in seeds if cell["speedup"][0]]
                if (found, name) == (depth, method) and timed:
                    points.append((mean(timed), *top1_of(seeds)))
            if points:
                x, y, low, high = zip(*sorted(points), strict=True)
                errors = [
                    [value - bound for value, bound in zip(y, low, strict=True)],
                    [bound - value for value, bound in zip(y, high, strict=True)],
                ]
                axis.errorbar(x, y, yerr=errors, marker="o", capsize=3, label=method)
        axis.set_title(f"ResNet-{depth}")
        axis.set_xlabel("measured latency, of the original's")
        axis.set_ylabel("top-1, % (95 %)")
        axis.legend(fontsize="small")
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    main()
