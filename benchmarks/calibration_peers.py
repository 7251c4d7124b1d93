"""Post-training INT8 beside ONNX Runtime's quantizer, modelopt and ai-edge-quantizer, in one run.

    EDGECLS_DATA=... python benchmarks/calibration_peers.py --make-envs
    EDGECLS_DATA=... python benchmarks/calibration_peers.py [lite0] [resnet20] [resnet56]

Every quantizer runs in an environment (``peers/NAME.txt``) and a process of its own, on the same
images, prepared alike. edgecls, ONNX Runtime and modelopt take the same float ONNX graph;
ai-edge-quantizer takes the float file that litert-torch makes of the same torch program. Each
result is judged beside its own float model: Q/DQ graphs as they are written, by ONNX Runtime
without optimisation, TFLite files by LiteRT. EfficientNet-Lite0: 100 photos calibrate, the other
400 judge; CIFAR ResNets: 200 training images calibrate, the 1,000 test images judge.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch
from calibration_peers_report import PeerRow, report
from common import cifar_folder, data_folder, machine, one_of, split, table, work_folder
from converters import ENVIRON, TIMEOUT_S
from converters_environments import PEERS, Environment
from peers.job import first_line

from edgecls.core.errors import EdgeclsError
from edgecls.core.progress import Quiet
from edgecls.core.ranges import DEFAULT_PERCENTILE, METHODS
from edgecls.data.images import list_images
from edgecls.data.labels import read_labels
from edgecls.data.stream import stream_pixels
from edgecls.data.truth import match_truth
from edgecls.drift.candidates import record
from edgecls.models import load_model
from edgecls.workflows.calibrate import CalibrateOptions, calibration_images, float_model
from edgecls.workflows.graph import OnnxRunner

ENVIRONMENTS: Final = ("onnxruntime", "modelopt", "litert-torch")
PART: Final = 8
NETWORKS: Final = ("lite0", "resnet20", "resnet56")


@dataclass(frozen=True)
class Quantizer:
    """A way to quantize, as the table has it.

    Attributes:
        name: Of the row.
        adapter: Its script in ``peers/``.
        options: What the adapter is told.
        environment: None is the one that runs this script, edgecls's.
    """

    name: str
    adapter: str
    options: dict[str, Any] = field(default_factory=dict)
    environment: str | None = None


def _ours(target: str) -> list[Quantizer]:
    return [
        Quantizer(f"edgecls {method}", "quantize_edgecls.py", {"target": target, "method": method})
        for method in METHODS
    ]


def _onnxruntime(*, symmetric: bool) -> list[Quantizer]:
    return [
        Quantizer(
            f"ONNX Runtime {method}", "quantize_onnxruntime.py",
            {"method": method, "symmetric": symmetric, "percentile": DEFAULT_PERCENTILE},
            "onnxruntime",
        )
        for method in ("MinMax", "Percentile", "Entropy")
    ]  # fmt: skip


# The first is what edgecls does by default.
SCHEMES: Final = {
    "symmetric activations, for TensorRT": [
        *_ours("jetson"),
        *_onnxruntime(symmetric=True),
        *(
            Quantizer(f"modelopt {method}", "quantize_modelopt.py", {"method": method}, "modelopt")
            for method in ("entropy", "max")
        ),
    ],
    "asymmetric activations, for TFLite": [
        *_ours("raspberry-pi"),
        *_onnxruntime(symmetric=False),
        *(
            Quantizer(
                f"ai-edge-quantizer {method}", "quantize_ai_edge.py", {"method": method},
                "litert-torch",
            )
            for method in ("default", "min-max")
        ),
    ],
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A model that is ready to be quantized.

    Attributes:
        title: Of the tables.
        job: What every adapter is told.
        judged: Normalised, (N, C, H, W) float32.
        names: Of the judging images.
        truth: Their classes.
        folder: Where all of it lies.
    """

    title: str
    job: dict[str, Any]
    judged: np.ndarray
    names: list[str]
    truth: np.ndarray
    folder: Path


def main() -> None:
    """Make environments, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=one_of(*NETWORKS), default=[])
    parser.add_argument("--make-envs", action="store_true", help="make what is missing, and end")
    parser.add_argument("--envs", type=Path, default=PEERS.parent.parent / "build" / "peers")
    parser.add_argument("--keep", type=Path, help="leave all files and logs in a new folder")
    parser.add_argument("--json", type=Path, help="also write all that was measured to a file")
    given = parser.parse_args()
    environments = {
        name: Environment(name, sys.executable, given.envs.resolve()) for name in ENVIRONMENTS
    }
    if given.make_envs:
        for environment in environments.values():
            environment.make()
    print(f"{machine()}\n\n{environments_table(environments)}\n", flush=True)
    if given.make_envs:
        return
    measured: dict[str, Any] = {"machine": machine(), "models": {}}
    with contextlib.nullcontext(given.keep) if given.keep else work_folder() as folder:
        for name in given.models or NETWORKS:
            case = prepare(name, data_folder(), Path(folder) / name)
            source = _float_file(case, environments["litert-torch"])
            for scheme, quantizers in SCHEMES.items():
                rows = [_judged(case, q, environments, source, scheme) for q in quantizers]
                text, values = report(f"{case.title}, {scheme}", rows)
                print(text, flush=True)
                measured["models"][f"{name}, {scheme}"] = values
    if given.json:
        given.json.write_text(json.dumps(measured, indent=1))


def prepare(name: str, data: Path, folder: Path) -> Case:
    """Save a model as a torch program and as edgecls's float graph, with its images."""
    folder.mkdir(parents=True)
    if name == "lite0":
        title, source, preset, count = "EfficientNet-Lite0", "timm:tf_efficientnet_lite0", None, 100
        weights = data / "weights" / "efficientnet-lite0-57934424.pth"
        calibration, judged = split(data / "imagenet500", folder / "photos", count)
        labels = read_labels(data / "imagenet_classes.json")
    else:
        depth = name.removeprefix("resnet")
        title, source, preset, count = f"CIFAR ResNet-{depth}", f"cifar_{name}", "cifar10", 200
        (weights,) = (data / "weights").glob(f"{name}-*.th")
        calibration = cifar_folder(data, "dev_train5000", folder)
        judged, labels = cifar_folder(data, "dev_test1000", folder), None
    options = CalibrateOptions(
        source=source, weights=weights, data=calibration, images=count, preprocess=preset
    )
    chosen = calibration_images(options, Quiet())
    model = float_model(options, chosen, Quiet())
    onnx.save(model.graph, folder / "float.onnx")
    module = load_model(source, weights=weights).module
    assert module is not None
    size = (model.preprocess.channels, *model.size)
    program = torch.export.export(module, (torch.zeros(1, *size),))
    torch.export.save(program, folder / "model.pt2")

    def pixels(images: Any) -> np.ndarray:
        stream = stream_pixels(images, model.preprocess, size=model.size, batch=PART)
        return np.concatenate([batch.stack() for batch in stream])

    np.save(folder / "calibration.npy", pixels(chosen))
    files = list_images(judged)
    tensors = model.preprocess.normalize(pixels(files))
    np.save(folder / "judged.npy", np.ascontiguousarray(tensors.transpose(0, 2, 3, 1)))
    truth = match_truth(files, num_classes=model.num_classes, labels=labels)
    assert truth is not None
    job = {
        "model": str(folder / "model.pt2"), "onnx": str(folder / "float.onnx"),
        "pixels": str(folder / "calibration.npy"), "size": size, "precision": "int8",
        "mean": model.preprocess.mean, "std": model.preprocess.std,
    }  # fmt: skip
    assert model.preprocess.scale == 255
    return Case(title, job, tensors, [file.name for file in files], truth.of(files), folder)


def _float_file(case: Case, environment: Environment) -> str:
    """Return litert-torch's float file; "" where it could not be made: its rows say why."""
    result = _run(case, environment, "convert_litert_torch.py", "float", {}, precision="fp32")
    return str(result["files"][0].get("path", ""))


def _judged(
    case: Case, quantizer: Quantizer, environments: dict[str, Environment], source: str, scheme: str
) -> PeerRow:
    environment = environments.get(quantizer.environment or "")
    if environment is not None and "error" in environment.state():
        return PeerRow(quantizer.name, error=environment.state()["error"])
    place = f"{scheme.split()[0]} {quantizer.name}".replace(" ", "-")
    result = _run(
        case, environment, quantizer.adapter, place, {**quantizer.options, "float": source}
    )
    (file,) = result["files"]
    if "error" in file:
        return PeerRow(quantizer.name, error=file["error"])
    own = source if quantizer.environment == "litert-torch" else case.job["onnx"]
    try:
        found = _logits(case, Path(file["path"]))
    except (EdgeclsError, subprocess.CalledProcessError) as error:
        return PeerRow(quantizer.name, error=f"the file does not run: {first_line(error)}")
    return PeerRow(
        quantizer.name,
        seconds=file["stages"]["quantize"],
        peak_bytes=result["peak_bytes"],
        record=record(case.names, _logits(case, Path(own)), found, case.truth),
    )


def _run(
    case: Case, environment: Environment | None, adapter: str, place: str, options: dict[str, Any],
    **job: str,
) -> dict[str, Any]:  # fmt: skip
    """Run an adapter in an environment, or in this one; return its result, also of a crash."""
    out = case.folder / place
    out.mkdir()
    (out / "job.json").write_text(
        json.dumps({**case.job, **job, "options": options, "out": str(out)})
    )
    python = sys.executable if environment is None else environment.interpreter
    with (out / "log.txt").open("w") as log:
        try:
            done = subprocess.run(
                [str(part) for part in (python, PEERS / adapter, out / "job.json")],
                stdout=log, stderr=log, timeout=TIMEOUT_S, cwd=out,
                env=None if environment is None else ENVIRON, check=False,
            )  # fmt: skip
            status = f"no result, exit status {done.returncode}"
        except subprocess.TimeoutExpired:
            status = f"no end after {TIMEOUT_S} s"
    result = out / "result.json"
    if not result.is_file():
        return {"files": [{"error": status}], "peak_bytes": 0}
    found: dict[str, Any] = json.loads(result.read_text())
    return found


def _logits(case: Case, file: Path) -> np.ndarray:
    """Return a file's logits of the judging images, (N, classes); computed once."""
    out = file.with_suffix(".logits.npy")
    if out.is_file():
        return np.asarray(np.load(out))
    if file.suffix == ".tflite":
        job = file.with_suffix(".answers.json")
        images = str(case.folder / "judged.npy")
        job.write_text(json.dumps({"file": str(file), "images": images, "out": str(out)}))
        command = [sys.executable, str(PEERS / "run_tflite.py"), "answers", str(job)]
        subprocess.run(command, check=True, capture_output=True, text=True)
    else:
        runner = OnnxRunner(onnx.load(file), threads=1)
        parts = range(0, len(case.judged), PART)
        np.save(out, np.concatenate([runner(case.judged[at : at + PART]) for at in parts]))
    return np.asarray(np.load(out))


def environments_table(environments: dict[str, Environment]) -> str:
    """Return the environments and what matters in each, as a table."""
    rows = []
    for name, environment in environments.items():
        state = environment.state()
        if "error" in state:
            rows.append([name, first_line(state["error"]), "", ""])
            continue
        packages = state["packages"]
        main_ones = (
            "onnxruntime", "nvidia-modelopt", "ai-edge-quantizer", "litert-torch", "torch",
            "torchao", "brevitas",
        )  # fmt: skip
        versions = ", ".join(f"{p} {packages[p]}" for p in main_ones if p in packages)
        rows.append([name, versions, state["python"], f"{state['bytes'] / 1e6:.0f} MB"])
    return table(("environment", "versions", "Python", "size"), rows)


if __name__ == "__main__":
    main()
