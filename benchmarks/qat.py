"""Quantization-aware training beside what calibration alone gives, where that loses.

    EDGECLS_DATA=... OMP_NUM_THREADS=1 python benchmarks/qat.py --results FILE.json
        [--net mobile_relu --net mobile_silu] [--spread 32] [--float-epochs 8] [--epochs 3]
        [--seeds 3] [--images 5000] [--target raspberry-pi --target jetson] [--teacher-alpha 0.5]
    python benchmarks/qat.py --results FILE.json --report

Nets of inverted residuals learn CIFAR-10's 5,000 images: `mobile_silu` with SiLU and
squeeze-and-excite; `mobile_relu` after its channels were scaled apart by up to --spread either
way, which computes the same and breaks plain int8. Each cell (net, target, teacher, seed) is one
`edgecls qat`; the files that ship answer to 1,000 other images, which chose nothing. Beside it
`more float` is as many epochs at the same rates without codes, then quantized: what further
training alone is worth. A cell that the results have is not run again.

Intervals: of each top-1 Wilson's 95 % at the mean over seeds (what other images would say); of a
gain, 95 % from the seeds' own gains (Student's t: what other seeds would say).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from common import cifar_folder, data_folder, edgecls, keep_images, machine, table, work_folder
from distillation import interval_of
from precision_search import PREPROCESS, learn, spread

from edgecls.core.files import write_atomic
from edgecls.drift.proportion import wilson

NETS = ("mobile_relu", "mobile_silu")
WAYS = ("float", "ptq", "more float", "qat")
KEY = ("net", "spread", "target", "alpha", "seed", "float_epochs", "epochs", "images")
RATE = 0.005
Cell = dict[str, Any]


def main() -> None:
    """Run the cells that are missing, or print the table of those that are there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--net", choices=NETS, action="append")
    parser.add_argument("--spread", type=float, default=32.0)
    parser.add_argument("--float-epochs", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--target", choices=("raspberry-pi", "jetson"), action="append")
    parser.add_argument("--teacher-alpha", type=float, action="append")
    parser.add_argument("--report", action="store_true")
    chosen = parser.parse_args()
    cells = json.loads(chosen.results.read_text()) if chosen.results.exists() else []
    if not chosen.report:
        run(chosen, cells)
    print(f"\n{machine()}\n")
    print(report(cells))


def run(chosen: argparse.Namespace, cells: list[Cell]) -> None:
    """Run what is missing; the results are written after each cell."""
    data = data_folder()
    done = {key_of(cell) for cell in cells}
    with work_folder() as folder:
        work = Path(folder)
        learned = cifar_folder(data, "dev_train5000", work)
        judged = cifar_folder(data, "dev_test1000", work)
        keep_images(learned, chosen.images)
        (work / "pre.toml").write_text(PREPROCESS)
        for seed in range(chosen.seeds):
            for net in chosen.net or NETS:
                weights: Path | None = None
                for target in chosen.target or ("raspberry-pi",):
                    for alpha in chosen.teacher_alpha or (0.0,):
                        cell: Cell = {
                            "net": net, "target": target, "alpha": alpha, "seed": seed,
                            "spread": chosen.spread if net == "mobile_relu" else 1.0,
                            "float_epochs": chosen.float_epochs, "epochs": chosen.epochs,
                            "images": chosen.images,
                        }  # fmt: skip
                        if key_of(cell) in done:
                            continue
                        if weights is None:
                            weights = trained(cell, learned, work)
                        cell |= measure(cell, weights, learned, judged, work)
                        cells.append(cell)
                        write_atomic(chosen.results, json.dumps(cells, indent=1).encode())
                        print(json.dumps(cell), flush=True)


def key_of(cell: Cell) -> tuple[Any, ...]:
    """Return what makes a cell the same."""
    return tuple(cell[name] for name in KEY)


def trained(cell: Cell, learned: Path, work: Path) -> Path:
    """Return a float net's weights, its channels scaled apart where that is asked for."""
    weights = learn(cell["net"], learned, work, cell["float_epochs"], cell["seed"])
    if cell["spread"] > 1:
        spread(weights, cell["spread"], cell["seed"])
    return weights


def measure(cell: Cell, weights: Path, learned: Path, judged: Path, work: Path) -> Cell:
    """Train once with codes and once without, and judge what ships on images that chose nothing."""
    source, target = f"small_nets:{cell['net']}", cell["target"]
    out = work / f"{cell['net']}-{cell['seed']}-{target}-{cell['alpha']}"
    images = ("--calib", learned, "--preprocess", work / "pre.toml")
    training = (
        source, "--weights", weights, "--data", learned, "--val-share", 0, "--epochs",
        cell["epochs"], "--seed", cell["seed"], "--threads", 1, "--device", "cpu", "--preprocess",
        work / "pre.toml", "--lr", RATE,
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
    plain = (source, "--weights", weights, "--preprocess", work / "pre.toml")
    found = edgecls("evaluate", *plain, "--data", judged).found
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
        net = first["net"] + (f", x{first['spread']:g}" if first["spread"] > 1 else "")
        rows.append(
            [
                net, first["target"], f"{first['alpha']:g}", *columns,
                f"{mean(gains):+.1f} ({interval_of(gains)})",
                f"{mean(beyond):+.1f} ({interval_of(beyond)})", str(len(seeds)),
                f"{first['float_epochs']} + {first['epochs']} x {first['images']:,}",
            ]
        )  # fmt: skip
    header = ["net", "target", "alpha", "float", "PTQ", "more float, PTQ", "QAT", "QAT - PTQ",
              "QAT - more float", "seeds", "epochs x images"]  # fmt: skip
    return table(header, rows)


if __name__ == "__main__":
    main()
