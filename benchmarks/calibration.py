"""What calibration takes beside the float model's own forward passes on the same images.

    EDGECLS_DATA=... python benchmarks/calibration.py [lite0] [resnet20] [--images 100] [--rounds 3]

Bare: ONNX Runtime with its default options, one image at a time, on tensors that are ready in
memory. Ours: from the image files to the table, with decoding and hashing. They take turns; the
least of each is compared. Peak memory is that of a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

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
from edgecls.workflows.sketch import Sketch

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


@dataclass(frozen=True)
class Case:
    """A model with the images that calibrate it."""

    title: str
    options: CalibrateOptions


def main() -> None:
    """Print one table per model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", type=one_of("lite0", "resnet20"), default=[])
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    data = data_folder()
    print(f"{machine()}, {given.images} images, least of {given.rounds} rounds\n")
    with work_folder() as folder:
        for name in given.names or ("lite0", "resnet20"):
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
    bare: list[float] = []
    ours: dict[CalibrationMethod, list[float]] = {method: [] for method in METHODS}
    for _ in range(rounds):
        for method in METHODS:
            start = time.perf_counter()
            for tensor in tensors:
                session.run(None, {name: tensor})
            bare.append(time.perf_counter() - start)
            start = time.perf_counter()
            calibrate(model.graph, images, preprocess=model.preprocess, size=model.size,
                      method=method, seed=0, progress=Quiet())  # fmt: skip
            ours[method].append(time.perf_counter() - start)
    least = min(bare)
    rows = [["bare forward passes", f"{least:.2f} s", "1.00"]]
    rows += [[m, f"{min(found):.2f} s", f"{min(found) / least:.2f}"] for m, found in ours.items()]
    print(f"{table((case.title, 'total', 'ratio'), rows)}\n")
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
