"""What calibration takes beside the float model's own forward passes on the same images.

    EDGECLS_DATA=... python benchmarks/calibration.py [lite0] [resnet20] [resnet18] [resnet50]
        [--images 100] [--rounds 3]

Bare: ONNX Runtime with its default options, one image at a time, on tensors that are ready in
memory; torch, in which the model was trained, likewise. From the files: as bare, while threads
decode the images ahead. Ours: from the image files to the table, with decoding and hashing. They
take turns; the least of each is compared, in seconds of the clock and of all cores. Peak memory is
that of a process of its own. ResNet-18 and -50 have random weights, which cost the same time.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec
import onnx
import onnxruntime as ort
from common import cifar_folder, data_folder, machine, one_of, table, work_folder

from edgecls.core.progress import Quiet
from edgecls.core.ranges import METHODS, CalibrationMethod
from edgecls.workflows.calibrate import (
    CalibrateOptions,
    FloatModel,
    calibrate,
    calibration_images,
    float_model,
    image_tensors,
)
from edgecls.workflows.graph import load_trained, run_torch
from edgecls.workflows.sketch import Sketch

BARE = "bare forward passes"
TORCH = "torch's forward passes"
CASES = ("lite0", "resnet20", "resnet18", "resnet50")

PEAK = """
import json, sys
from pathlib import Path
import onnx
from edgecls.core.progress import Quiet
from edgecls.core.preprocess import Preprocess
from edgecls.data.images import list_images, select_images
from edgecls.workflows.calibrate import calibrate
import msgspec
given = json.loads(sys.argv[1])
images = select_images(list_images(Path(given["data"])), given["images"], 0)
calibrate(onnx.load(given["graph"]), images * given["repeat"],
          preprocess=msgspec.convert(given["preprocess"], Preprocess), size=tuple(given["size"]),
          method="minmax", seed=0, progress=Quiet())
print(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1])
"""


class Taken(NamedTuple):
    """Seconds of the clock, and of all cores together."""

    clock: float
    cores: float


def take(run: Callable[[], object]) -> Taken:
    """Time a run."""
    clock, cores = time.perf_counter(), time.process_time()
    run()
    return Taken(time.perf_counter() - clock, time.process_time() - cores)


@dataclass(frozen=True)
class Case:
    """A model with the images that calibrate it."""

    title: str
    options: CalibrateOptions


def main() -> None:
    """Print one table per model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", type=one_of(*CASES), default=[])
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    data = data_folder()
    print(f"{machine()}, {given.images} images, least of {given.rounds} rounds\n")
    with work_folder() as folder:
        for name in given.names or CASES:
            case = make_case(name, data, Path(folder), given.images)
            measure(case, Path(folder), given.rounds)


def make_case(name: str, data: Path, work: Path, images: int) -> Case:
    """Return the case of a name."""
    if name == "lite0":
        weights = data / "weights" / "efficientnet-lite0-57934424.pth"
        return Case("EfficientNet-Lite0, photos", CalibrateOptions(
            source="timm:tf_efficientnet_lite0", weights=weights, data=data / "imagenet500",
            images=images,
        ))  # fmt: skip
    if name != "resnet20":
        return Case(f"ResNet-{name.removeprefix('resnet')}, random weights, photos",
            CalibrateOptions(source=f"timm:{name}", data=data / "imagenet500", images=images,
                             allow_random_weights=True),
        )  # fmt: skip
    return Case("CIFAR ResNet-20", CalibrateOptions(
        source="cifar_resnet20", weights=data / "weights" / "resnet20-12fca82f.th",
        data=cifar_folder(data, "dev_test1000", work), images=images, preprocess="cifar10",
    ))  # fmt: skip


def measure(case: Case, work: Path, rounds: int) -> None:
    """Time both by turns and print the table."""
    images = calibration_images(case.options, Quiet())
    model = float_model(case.options, images, Quiet())
    sketch = Sketch(model.preprocess.channels)
    tensors = [t for _, t in image_tensors(images, model.preprocess, model.size, Quiet(), sketch)]
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.graph.SerializeToString(), options)
    name = session.get_inputs()[0].name

    def bare() -> None:
        for tensor in tensors:
            session.run(None, {name: tensor})

    loaded = load_trained(case.options, Quiet())

    def torch_bare() -> None:
        for tensor in tensors:
            run_torch(loaded, tensor)

    def from_files() -> None:
        found = Sketch(model.preprocess.channels)
        for _, tensor in image_tensors(images, model.preprocess, model.size, Quiet(), found):
            session.run(None, {name: tensor})

    def ours(method: CalibrationMethod) -> Callable[[], object]:
        return lambda: calibrate(
            model.graph, images, preprocess=model.preprocess, size=model.size, method=method,
            seed=0, progress=Quiet(),
        )  # fmt: skip

    runs: dict[str, Callable[[], object]] = {
        BARE: bare, TORCH: torch_bare, "forward passes from the files": from_files,
        **{method: ours(method) for method in METHODS},
    }  # fmt: skip
    found: dict[str, list[Taken]] = {title: [] for title in runs}
    for _ in range(rounds):
        for title, run in runs.items():
            found[title].append(take(run))
    least = {title: Taken(min(t.clock for t in all_), min(t.cores for t in all_))
             for title, all_ in found.items()}  # fmt: skip
    first, torch = least[BARE], least[TORCH]
    rows = [
        [title, f"{t.clock:.2f} s", f"{t.clock / first.clock:.2f}", f"{t.clock / torch.clock:.2f}",
         f"{t.cores:.2f} s", f"{t.cores / first.cores:.2f}", f"{t.cores / torch.cores:.2f}"]
        for title, t in least.items()
    ]  # fmt: skip
    header = (case.title, "clock", "/ bare", "/ torch", "all cores", "/ bare", "/ torch")
    print(f"{table(header, rows)}\n")
    peaks = [peak(case, model, work, repeat) for repeat in (1, 10)]
    print(
        f"Peak memory: {len(images)} images {peaks[0] / 1e6:.0f} MB, {10 * len(images)} images "
        f"{peaks[1] / 1e6:.0f} MB ({100 * (peaks[1] / peaks[0] - 1):+.1f} %)\n"
    )


def peak(case: Case, model: FloatModel, work: Path, repeat: int) -> int:
    """Return the peak memory of a calibration on the images, each taken ``repeat`` times."""
    graph = work / "graph.onnx"
    onnx.save(model.graph, graph)
    given = {
        "graph": str(graph), "data": str(case.options.data), "images": case.options.images,
        "repeat": repeat, "preprocess": msgspec.to_builtins(model.preprocess), "size": model.size,
    }  # fmt: skip
    command = [sys.executable, "-c", PEAK, json.dumps(given)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1]) * 1024


if __name__ == "__main__":
    main()
