"""What `edgecls train` reaches from scratch with its defaults, and how long it takes.

    EDGECLS_DATA=... python benchmarks/training.py [--fashion DIR] [--epochs 12] [FAMILY ...]

Three families on CIFAR-10's 5,000 images (a tenth of the usual set), judged by `edgecls evaluate`
on 1,000 others; LeNet on Fashion-MNIST where its files are (Debian: dataset-fashion-mnist). The
last epoch is kept: no image that judges has chosen anything. Intervals are Wilson's, 95 %: what
another 1,000 images would say; another seed moves the figure as well. Small networks are fastest
with one thread: OMP_NUM_THREADS=1. CPU minutes are what one quiet core would need.
"""

from __future__ import annotations

import argparse
import os
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from common import cifar_folder, data_folder, edgecls, machine, one_of, table, work_folder

from edgecls.drift.proportion import wilson

FASHION = Path("/usr/share/datasets/fashion-mnist")


@dataclass(frozen=True)
class Family:
    """A model, and what differs from the defaults."""

    model: str
    options: tuple[str, ...] = ()
    preprocess: tuple[str, ...] = ()


FAMILIES = {
    "LeNet-5, 28x28 grey": Family("lenet5"),
    "VGG-like": Family("small_nets:vgg", preprocess=("--preprocess", "small_nets.toml")),
    "ResNet-20": Family("cifar_resnet20"),
}
# With 60,000 images LeNet has nothing to gain from more of them, and little room for it.
FASHION_FAMILY = Family("lenet5", options=("--augment", "none"))
SHORT = {"lenet": "LeNet-5, 28x28 grey", "vgg": "VGG-like", "resnet20": "ResNet-20"}


def main() -> None:
    """Print one table, a row as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fashion", type=Path, default=FASHION)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("family", nargs="*", type=one_of(*SHORT, "fashion"))
    chosen = parser.parse_args()
    names = chosen.family or [*SHORT, "fashion"]
    data = data_folder()
    os.chdir(Path(__file__).parent)  # where small_nets is found
    rows = []
    with work_folder() as folder:
        work = Path(folder)
        cifar = [cifar_folder(data, part, work) for part in ("dev_train5000", "dev_test1000")]
        for short in names:
            if short == "fashion":
                if chosen.fashion.is_dir():
                    row = measure(
                        "LeNet-5, Fashion-MNIST", FASHION_FAMILY, chosen.fashion, chosen.fashion,
                        work, chosen.epochs, ("--split", "test"),
                    )  # fmt: skip
                else:
                    print(f"left out: {chosen.fashion} does not exist")
                    continue
            else:
                name = SHORT[short]
                row = measure(name, FAMILIES[name], *cifar, work, chosen.epochs, ())
            rows.append(row)
            print("  ".join(row), flush=True)
    print(f"\n{machine()}, {chosen.epochs} epochs\n")
    header = ["", "parameters", "images", "minutes", "CPU minutes", "top-1", "95 % interval", "of"]
    print(table(header, rows))


def measure(
    name: str, family: Family, learned: Path, judged: Path, work: Path, epochs: int,
    split: tuple[str, ...],
) -> list[str]:  # fmt: skip
    """Train and judge one model."""
    out = work / family.model.replace(":", "-") / name
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = edgecls(
        "train", family.model, "--data", learned, "--val-share", 0, "--epochs", epochs, "-o", out,
        *family.preprocess, *family.options,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    weights = out / "model.safetensors"
    found = edgecls(
        "evaluate", family.model, "--weights", weights, "--num-classes", 10, *family.preprocess,
        "--data", judged, *split,
    ).found  # fmt: skip
    images, top1 = int(cast("int", found["images"])), float(cast("float", found["top1"]))
    low, high = wilson(round(top1 * images / 100), images)
    plan = edgecls(
        "train", family.model, "--data", learned, "--epochs", epochs, "-o", work / "none",
        *family.preprocess, "--val-share", 0, "--dry-run",
    ).found  # fmt: skip
    return [
        name,
        f"{int(cast('int', plan['parameters'])):,}",
        f"{int(cast('int', plan['images'])):,}",
        f"{done.seconds / 60:.1f}",
        f"{cpu_s / 60:.1f}",
        f"{top1:.1f} %",
        f"{100 * low:.1f}..{100 * high:.1f}",
        f"{images:,}",
    ]


if __name__ == "__main__":
    main()
