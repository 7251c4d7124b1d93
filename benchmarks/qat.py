"""Quantization-aware training beside what calibration alone gives, where that loses.

    EDGECLS_DATA=... OMP_NUM_THREADS=1 python benchmarks/qat.py --cache FOLDER --results FILE.json
        [--net "mobile_silu, apart" --net "vit, apart"] [--float-epochs 8] [--epochs 3] [--seeds 3]
        [--target raspberry-pi --target jetson] [--teacher-alpha 0.5]
    python benchmarks/qat.py --results FILE.json --report

The nets are those of `precision_search.py` that learn CIFAR-10's 5,000 images, by default after
their channels were scaled apart: that computes the same and breaks plain int8. Each cell (net,
target, teacher, seed) is one `edgecls qat`; the files that ship answer to 1,000 other images, which
chose nothing. Beside it `more float` is as many epochs at the same rates without codes, then
quantized: what further training alone is worth. A cell that the results have is not run again.

Intervals: of each top-1 Wilson's 95 % at the mean over seeds (what other images would say); of a
gain, 95 % from the seeds' own gains (Student's t: what other seeds would say).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

from common import data_folder, edgecls, machine, table, work_folder
from distillation import interval_of
from precision_search_nets import NETS, cached, trained

from edgecls.core.files import write_atomic
from edgecls.drift.proportion import wilson

WAYS = ("float", "ptq", "more float", "qat")
KEY = ("net", "target", "alpha", "seed", "float_epochs", "epochs")
RATE = 0.005
Cell = dict[str, Any]


def main() -> None:
    """Run the cells that are missing, or print the table of those that are there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--cache", type=Path, help="where trained nets are kept; needed to run")
    choices = [name for name, net in NETS.items() if net.weights is None]
    parser.add_argument("--net", choices=choices, action="append")
    parser.add_argument("--float-epochs", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--target", choices=("raspberry-pi", "jetson"), action="append")
    parser.add_argument("--teacher-alpha", type=float, action="append")
    parser.add_argument("--report", action="store_true")
    chosen = parser.parse_args()
    cells = json.loads(chosen.results.read_text()) if chosen.results.exists() else []
    if not chosen.report:
        if chosen.cache is None:
            parser.error("--cache FOLDER keeps the trained nets")
        run(chosen, cells)
    print(f"\n{machine()}\n")
    print(report(cells))


def run(chosen: argparse.Namespace, cells: list[Cell]) -> None:
    """Run what is missing; the results are written after each cell."""
    data, cache = data_folder(), chosen.cache.resolve()
    done = {key_of(cell) for cell in cells}
    learned, judged = (cached(data, part, cache) for part in ("dev_train5000", "dev_test1000"))
    with work_folder() as folder:
        for seed, net, target, alpha in product(
            range(chosen.seeds),
            chosen.net or ("mobile_silu, apart", "vit, apart"),
            chosen.target or ("raspberry-pi",),
            chosen.teacher_alpha or (0.0,),
        ):
            cell: Cell = {
                "net": net, "target": target, "alpha": alpha, "seed": seed,
                "float_epochs": chosen.float_epochs, "epochs": chosen.epochs,
            }  # fmt: skip
            if key_of(cell) in done:
                continue
            weights = trained(net, seed, learned, cache, chosen.float_epochs)
            cell |= measure(cell, weights, learned, judged, Path(folder) / str(len(cells)))
            cells.append(cell)
            write_atomic(chosen.results, json.dumps(cells, indent=1).encode())
            print(json.dumps(cell), flush=True)


def key_of(cell: Cell) -> tuple[Any, ...]:
    """Return what makes a cell the same."""
    return tuple(cell[name] for name in KEY)


def measure(cell: Cell, weights: Path, learned: Path, judged: Path, out: Path) -> Cell:
    """Train once with codes and once without, and judge what ships on images that chose nothing."""
    net, target = NETS[cell["net"]], cell["target"]
    source, preprocess = net.source, ("--preprocess", net.preprocess)
    images = ("--calib", learned, *preprocess)
    training = (
        source, "--weights", weights, "--data", learned, "--val-share", 0, "--epochs",
        cell["epochs"], "--seed", cell["seed"], "--threads", 1, "--device", "cpu", *preprocess,
        "--lr", RATE,
    )  # fmt: skip
    alpha = ("--teacher-alpha", cell["alpha"]) if cell["alpha"] else ()
    made = edgecls("qat", *training, "--target", target, *alpha, "-o", out / "trained")
    edgecls("train", *training, "-o", out / "more")
    more = out / "more" / "model.safetensors"
    exports: dict[str, tuple[object, ...]] = {
        "ptq": (source, "--weights", weights, *images),
        "more float": (source, "--weights", more, *images),
        "qat": (out / "trained",),
    }
    found = edgecls(
        "evaluate", source, "--weights", weights, *preprocess, "--data", judged
    ).found  # fmt: skip
    answers: Cell = {"float": found["top1"], "judged": found["images"], "seconds": made.seconds}
    for way, options in exports.items():
        edgecls("export", *options, "--target", target, "-o", out / way)
        found = edgecls(
            "evaluate", out / way / target, "--allow-fallback", "--data", judged
        ).found  # fmt: skip
        answers[way] = found["top1"]
    return answers


def report(cells: Sequence[Cell]) -> str:
    """Return a row for each setting."""
    groups: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in cells:
        groups.setdefault(tuple(cell[name] for name in KEY if name != "seed"), []).append(cell)
    rows = []
    for seeds in groups.values():
        first, images = seeds[0], int(seeds[0]["judged"])
        columns = []
        for way in WAYS:
            value = mean(cell[way] for cell in seeds)
            low, high = (100 * bound for bound in wilson(round(value * images / 100), images))
            columns.append(f"{value:.1f} % ({low:.1f}..{high:.1f})")
        gains = [cell["qat"] - cell["ptq"] for cell in seeds]
        beyond = [cell["qat"] - cell["more float"] for cell in seeds]
        rows.append(
            [
                first["net"], first["target"], f"{first['alpha']:g}", *columns,
                f"{mean(gains):+.1f} ({interval_of(gains)})",
                f"{mean(beyond):+.1f} ({interval_of(beyond)})", str(len(seeds)),
                f"{first['float_epochs']} + {first['epochs']}",
            ]
        )  # fmt: skip
    header = ["net", "target", "alpha", "float", "PTQ", "more float, PTQ", "QAT", "QAT - PTQ",
              "QAT - more float", "seeds", "epochs"]  # fmt: skip
    return table(header, rows)


if __name__ == "__main__":
    main()
