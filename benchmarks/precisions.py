"""What each precision of a TFLite file costs and gives: accuracy, size and time, in one run.

    EDGECLS_DATA=... python benchmarks/precisions.py [--rounds 100]

EfficientNet-Lite0 on LiteRT: 100 photos calibrate where this is needed, the other 400 judge against
float32 on ONNX Runtime. Time is the bare interpreter's ``invoke`` on one thread; the files take
turns, medians are printed.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
from ai_edge_litert.interpreter import Interpreter
from common import data_folder, edgecls, machine, split, table, work_folder

from edgecls.bundle import Bundle
from edgecls.core.preprocess import Preprocess
from edgecls.targets import get_target

TARGET = "raspberry-pi"


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    rounds = parser.parse_args().rounds
    data = data_folder()
    with work_folder() as folder:
        work = Path(folder)
        calibration, judged = split(data / "imagenet500", work / "photos", 100)
        # One graph for all: only the precision differs.
        edgecls(
            "export", "timm:tf_efficientnet_lite0", "--weights",
            data / "weights" / "efficientnet-lite0-57934424.pth", "--target", TARGET,
            "--precision", "fp32", "--keep-graphs", work, "-o", work / "first",
        )  # fmt: skip
        preprocess = work / "preprocess.toml"
        preprocess.write_text(as_toml(Bundle(work / "first" / TARGET).manifest.preprocess))
        model = work / "float.onnx"
        rows, files = {}, {}
        for precision in get_target(TARGET).precisions:
            out = work / precision
            edgecls(
                "export", model, "--preprocess", preprocess, "--target", TARGET, "--precision",
                precision, "--calib", calibration, "--labels", data / "imagenet_classes.json",
                "-o", out,
            )  # fmt: skip
            files[precision] = out / TARGET / f"model.{precision}.tflite"
            rows[precision] = judge(out / TARGET, model, judged)
            rows[precision].append(f"{files[precision].stat().st_size / 1e6:.2f} MB")
        times = invoke_ms(files, rounds)
    for precision, row in rows.items():
        row += [f"{times[precision]:.2f} ms", f"{times[precision] / times['fp32']:.2f}"]
    print(f"{machine()}, one thread, medians of {rounds}\n")
    print(table(("", "top-1", "agrees with float32", "mean logit difference", "size", "`invoke`",
                 "of fp32's"), [[f"`{name}`", *row] for name, row in rows.items()]))  # fmt: skip


def as_toml(preprocess: Preprocess) -> str:
    """Return a preprocessing as a file that ``--preprocess`` takes."""
    values = msgspec.to_builtins(preprocess)
    return "[preprocess]\n" + "".join(f"{key} = {json.dumps(v)}\n" for key, v in values.items())


def judge(bundle: Path, model: Path, judged: Path) -> list[str]:
    """Return a bundle's accuracy beside the float graph's."""
    drifted = edgecls(
        "drift", bundle, "--reference", model, "--data", judged, "--backend", "litert",
        codes=(0, 1, 5),
    )  # fmt: skip
    summary: Any = drifted.found["summary"]
    metrics: Any = drifted.found["metrics"]
    return [f"{summary['candidate_top1']:.2f} %", f"{summary['agreement']:.2f} %",
            f"{metrics['mean_logit_difference']:.4f}"]  # fmt: skip


def invoke_ms(files: dict[str, Path], rounds: int) -> dict[str, float]:
    """Return the median time of each file's ``invoke``."""
    nets = {}
    for name, file in files.items():
        nets[name] = Interpreter(model_path=str(file), num_threads=1)
        nets[name].allocate_tensors()
        nets[name].invoke()
    times: dict[str, list[float]] = {name: [] for name in nets}
    for _ in range(rounds):
        for name, net in nets.items():
            start = time.perf_counter()
            net.invoke()
            times[name].append(time.perf_counter() - start)
    return {name: 1e3 * median(values) for name, values in times.items()}


if __name__ == "__main__":
    main()
