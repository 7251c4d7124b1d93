"""A student that learns from a teacher beside its control, which learns from the labels alone.

    EDGECLS_DATA=... OMP_NUM_THREADS=1 python benchmarks/distillation.py --results FILE.json
        [--depth 56] [--until macs=0.5x] [--epochs 8] [--seeds 3] [--images 5000] [STUDENT ...]
    python benchmarks/distillation.py --results FILE.json --report

The teacher is a CIFAR ResNet with the published weights. Students: `scratch`, a ResNet-20 that has
learned nothing; `pruned`, the teacher itself after `edgecls prune --until`, not trained again.
Each cell (teacher, student, lesson, seed) is one `edgecls distill --control` on CIFAR-10's 5,000
images, a tenth of which chooses the epoch; 1,000 other images judge what it wrote. The control has
the same seed, so the same initial weights, order and augmentation. A cell that the results have is
not run again, so that the whole can be run in parts.

Intervals: of each top-1 Wilson's 95 % at the mean over seeds (what other images would say); of the
gain, 95 % from the seeds' own gains (Student's t: what other seeds would say), so that it needs two
seeds or more.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
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

STUDENTS = ("scratch", "pruned")
LESSONS: dict[str, tuple[str, ...]] = {
    "T=4, alpha=0.9": (),
    "T=1, alpha=0.5": ("--temperature", "1", "--alpha", "0.5"),
    "with hints": ("--hint", "layer2", "--hint", "layer3"),
}
KEY = ("depth", "student", "until", "lesson", "seed", "epochs", "images")
Cell = dict[str, Any]


def main() -> None:
    """Run the cells that are missing, or print the table of those that are there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--depth", type=int, default=56, choices=(20, 32, 44, 56))
    parser.add_argument("--until", default="macs=0.5x")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--lesson", choices=tuple(LESSONS), action="append")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("student", nargs="*", type=one_of(*STUDENTS))
    chosen = parser.parse_args()
    cells = json.loads(chosen.results.read_text()) if chosen.results.exists() else []
    if not chosen.report:
        run(chosen, cells)
    print(f"\n{machine()}\n")
    print(report(cells))


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
        for seed in range(chosen.seeds):
            for student in chosen.student or STUDENTS:
                for lesson in chosen.lesson or LESSONS:
                    cell: Cell = {
                        "depth": chosen.depth, "student": student, "lesson": lesson, "seed": seed,
                        "until": chosen.until if student == "pruned" else None,
                        "epochs": chosen.epochs, "images": chosen.images,
                    }  # fmt: skip
                    if key_of(cell) in done:
                        continue
                    cell |= distill(cell, weights, learned, judged, work / str(len(cells)))
                    cells.append(cell)
                    write_atomic(chosen.results, json.dumps(cells, indent=1).encode())
                    print(json.dumps(cell), flush=True)


def key_of(cell: Cell) -> tuple[Any, ...]:
    """Return what makes a cell the same."""
    return tuple(cell[name] for name in KEY)


def distill(cell: Cell, weights: Path, learned: Path, judged: Path, work: Path) -> Cell:
    """Distill once, and judge teacher, control and student on images that chose nothing."""
    teacher = f"cifar_resnet{cell['depth']}"
    student: tuple[object, ...] = ("cifar_resnet20",)
    if cell["student"] == "pruned":
        edgecls(
            "prune", teacher, "--weights", weights, "--data", learned, "--epochs", 0, "--until",
            cell["until"], "--threads", 1, "-o", work / "small",
        )  # fmt: skip
        student = (work / "small", "--lr", 0.01)
    found = edgecls(
        "distill", *student, "--teacher", teacher, "--teacher-weights", weights, "--data", learned,
        "--epochs", cell["epochs"], "--seed", cell["seed"], "--threads", 1, "--control",
        *LESSONS[cell["lesson"]], "-o", work / "out",
    )  # fmt: skip
    document = cast("dict[str, Any]", found.found)
    models: dict[str, tuple[object, ...]] = {
        "teacher": (teacher, "--weights", weights),
        "control": (work / "out" / "control",),
        "distilled": (work / "out",),
    }
    answers = {
        who: edgecls("evaluate", *model, "--data", judged).found for who, model in models.items()
    }
    return {
        **{who: found["top1"] for who, found in answers.items()},
        "parameters": document["rows"][-1]["parameters"],
        "judged": answers["distilled"]["images"],
        "seconds": found.seconds,
    }


def interval_of(gains: Sequence[float]) -> str:
    """Return the 95 % interval of the mean gain over seeds."""
    from scipy.stats import t

    if len(gains) < 2:
        return "one seed"
    half = float(t.ppf(0.975, len(gains) - 1)) * stdev(gains) / len(gains) ** 0.5
    return f"{mean(gains) - half:+.1f}..{mean(gains) + half:+.1f}"


def report(cells: Sequence[Cell]) -> str:
    """Return a row for each setting."""
    groups: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in cells:
        groups.setdefault(tuple(cell[name] for name in KEY if name != "seed"), []).append(cell)
    rows = []
    for seeds in groups.values():
        first, images = seeds[0], int(seeds[0]["judged"])
        columns = []
        for who in ("teacher", "control", "distilled"):
            value = mean(cell[who] for cell in seeds)
            low, high = (100 * bound for bound in wilson(round(value * images / 100), images))
            columns.append(f"{value:.1f} % ({low:.1f}..{high:.1f})")
        gains = [cell["distilled"] - cell["control"] for cell in seeds]
        what = "ResNet-20" if first["student"] == "scratch" else f"pruned, {first['until']}"
        rows.append(
            [
                f"{what} of ResNet-{first['depth']}",
                f"{first['parameters']:,}",
                first["lesson"],
                *columns,
                f"{mean(gains):+.1f}",
                interval_of(gains),
                str(len(seeds)),
                f"{first['epochs']} x {first['images']:,}",
            ]
        )
    header = ["student", "parameters", "lesson", "teacher", "control", "distilled", "gain", "95 %",
              "seeds", "epochs x images"]  # fmt: skip
    return table(header, rows)


if __name__ == "__main__":
    main()
